"""``formicary run``: one job, from its file to its end."""

from typing import Annotated

import typer

from formicary.cli import options


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("run")(run)


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML file of the job; - is stdin.")],
    *,
    param: options.ParamsOption = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Show progress while it runs.")] = True,
    output: options.OutputOption = options.Output.TEXT,
    slots: options.SlotsOption = None,
    python_path: options.PythonPathOption = None,
    home: options.HomeOption = None,
    database_url: options.DatabaseOption = None,
    broker_url: options.BrokerOption = None,
    artifacts_url: options.ArtifactsOption = None,
    log_level: options.LogLevelOption = None,
    log_format: options.LogFormatOption = None,
) -> int:
    """Run a job to its end, starting what it needs; exits 0 only if it is COMPLETED."""
    import os

    from formicary import log, settings
    from formicary.cli.files import read_text
    from formicary.cli.runner import Wanted, run_job
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import log_unknown

    loaded = settings.load(
        home=home,
        database_url=database_url,
        broker_url=broker_url,
        artifacts_url=artifacts_url,
        log_level=log_level or os.environ.get("FORMICARY_LOG_LEVEL") or "warning",
        log_format=log_format,
    )
    log.configure(loaded.log_level, loaded.log_format)
    log_unknown()
    wanted = Wanted(
        file=file,
        text=read_text(file),
        params=options.params_of(param),
        is_watched=watch,
        is_json=output is options.Output.JSON,
        slots=slots,
        python_path=python_path,
        has_own_artifacts_url=artifacts_url is not None or bool(os.environ.get("FORMICARY_ARTIFACTS_URL")),
    )
    return run_loop(run_job(loaded, wanted))
