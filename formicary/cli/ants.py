"""``formicary ant`` starts one; ``formicary ant list`` shows those that live."""

from typing import Annotated

import typer

from formicary.cli import options

app = typer.Typer(rich_markup_mode=None, help="Start an ant; or list the live ones.")


@app.callback(invoke_without_command=True)
def ant(
    context: typer.Context,
    *,
    ant_id: Annotated[
        str | None, typer.Option("--id", help="Stable name of this ant; default: the host's name.")
    ] = None,
    slots: options.SlotsOption = None,
    tags: options.TagsOption = None,
    methods: options.MethodsOption = None,
    python_path: options.PythonPathOption = None,
    shell_user: options.ShellUserOption = None,
    shell_limits: options.ShellLimitsOption = None,
    home: options.HomeOption = None,
    broker_url: options.BrokerOption = None,
    artifacts_url: options.ArtifactsOption = None,
    workers_listen: options.WorkersListenOption = None,
    workers_origins: options.WorkersOriginsOption = None,
    ant_lease_s: options.AntLeaseOption = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
    ready_file: options.ReadyFileOption = None,
    check: options.CheckOption = False,
) -> int:
    """Start an ant, which runs tasks; or list the live ones."""
    if context.invoked_subcommand is not None:
        return 0
    from functools import partial

    from formicary import log, settings
    from formicary.cli.ant_flags import ant_options

    load = partial(
        settings.load,
        home=home,
        broker_url=broker_url,
        artifacts_url=artifacts_url,
        workers_listen=workers_listen,
        workers_origins=workers_origins,
        ant_lease_s=ant_lease_s,
        shell_user=shell_user,
        shell_limits=shell_limits,
        log_level=log_level,
        log_format=log_format,
    )
    wanted = ant_options(ant_id=ant_id, slots=slots, tags=tags, methods=methods, python_path=python_path)
    if check:
        from formicary.cli.preflight import check_ant

        return check_ant(load, wanted)
    from formicary.cli.colonies import serve_ant
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import log_unknown

    loaded = load()
    log.configure(loaded.log_level, loaded.log_format)
    log_unknown()
    return run_loop(serve_ant(loaded, wanted, ready_file))


@app.command("list")
def list_ants(
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """List the live ants."""
    from formicary.cli.client import connect
    from formicary.cli.output import print_table, print_text

    answer = connect(server, token).get("/api/v1/ants")
    if output is options.Output.JSON:
        print_text(answer.text())
        return
    rows = [
        (
            ant["id"],
            f"{ant['running']}/{ant['slots']}",
            ",".join(ant["methods"]),
            ",".join(ant["tags"]),
            " ".join(_workers(offer) for offer in ant["workers"]),
            ant["last_heartbeat_at"],
        )
        for ant in answer.json()["items"]
    ]
    print_table(("ID", "RUNNING", "METHODS", "TAGS", "WORKERS", "LAST HEARTBEAT"), rows)


def _workers(offer: dict[str, list[str]]) -> str:
    tags = f"[{','.join(offer['tags'])}]" if offer["tags"] else ""
    return ",".join(offer["methods"]) + tags
