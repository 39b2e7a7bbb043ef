"""``formicary up`` and ``formicary queen``."""

from typing import Annotated

import typer

from formicary.cli import options


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.command("up")(up)
    app.command("queen")(queen)


def up(
    *,
    slots: options.SlotsOption = None,
    listen: options.ListenOption = None,
    home: options.HomeOption = None,
    database_url: options.DatabaseOption = None,
    broker_url: options.BrokerOption = None,
    artifacts_url: options.ArtifactsOption = None,
    workers_listen: options.WorkersListenOption = None,
    workers_origins: options.WorkersOriginsOption = None,
    python_path: options.PythonPathOption = None,
    shell_user: options.ShellUserOption = None,
    shell_limits: options.ShellLimitsOption = None,
    lease_s: options.LeaseOption = None,
    ant_lease_s: options.AntLeaseOption = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
    ready_file: options.ReadyFileOption = None,
) -> int:
    """Serve a whole colony: queen and ant in one process, with an embedded Postgres."""
    from formicary import log, settings
    from formicary.cli.ant_flags import ant_options
    from formicary.cli.colonies import serve_up
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import log_unknown

    loaded = settings.load(
        listen=listen,
        home=home,
        database_url=database_url,
        broker_url=broker_url,
        artifacts_url=artifacts_url,
        workers_listen=workers_listen,
        workers_origins=workers_origins,
        lease_s=lease_s,
        ant_lease_s=ant_lease_s,
        shell_user=shell_user,
        shell_limits=shell_limits,
        log_level=log_level,
        log_format=log_format,
    )
    log.configure(loaded.log_level, loaded.log_format)
    log_unknown()
    return run_loop(serve_up(loaded, ant_options(slots=slots, python_path=python_path), ready_file))


def queen(
    *,
    queen_id: Annotated[
        str | None, typer.Option("--id", help="Stable name of this queen; default: the host's name.")
    ] = None,
    listen: options.ListenOption = None,
    home: options.HomeOption = None,
    database_url: options.DatabaseOption = None,
    broker_url: options.BrokerOption = None,
    artifacts_url: options.ArtifactsOption = None,
    lease_s: options.LeaseOption = None,
    ant_lease_s: options.AntLeaseOption = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
    ready_file: options.ReadyFileOption = None,
    check: options.CheckOption = False,
) -> int:
    """Serve a queen: the API, the scheduler and the jobs of the shards it owns."""
    from functools import partial

    from formicary import log, settings

    load = partial(
        settings.load,
        listen=listen,
        home=home,
        database_url=database_url,
        broker_url=broker_url,
        artifacts_url=artifacts_url,
        lease_s=lease_s,
        ant_lease_s=ant_lease_s,
        log_level=log_level,
        log_format=log_format,
    )
    if check:
        from formicary.cli.preflight import check_queen

        return check_queen(load)
    from formicary.cli.colonies import serve_queen
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import log_unknown

    loaded = load()
    log.configure(loaded.log_level, loaded.log_format)
    log_unknown()
    return run_loop(serve_queen(loaded, queen_id, ready_file))
