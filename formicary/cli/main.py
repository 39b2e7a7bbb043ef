"""The command line: assembles the commands, and turns what they raise into one line and an exit code.

Modules of commands import nothing heavy before a command runs, so that ``--help`` is quick.
"""

import errno
import sys
from collections.abc import Sequence

import typer

from formicary._origin import check_packages
from formicary.cli import ants, broker, colony, definitions, jobs, run, serve, show_settings

#: Exit codes, as documented for users.
DONE = 0
JOB_FAILED = 1
BAD_INPUT = 2
UNREACHABLE = 3
INTERRUPTED = 130

app = typer.Typer(
    name="formicary",
    help="Runs jobs: graphs of tasks, written in YAML.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
serve.register(app)
run.register(app)
app.add_typer(ants.app, name="ant")
app.add_typer(jobs.app, name="job")
app.add_typer(definitions.app, name="definition")
app.add_typer(broker.app, name="broker")
app.add_typer(colony.app, name="colony")
show_settings.register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True)) -> None:
    if version:
        from formicary import __version__

        typer.echo(f"formicary {__version__}")
        raise typer.Exit(0)


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    code = run_command(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        code = _cannot_write(error)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; errors are one line each on stderr."""
    try:
        check_packages()
        result = app(args=list(arguments) or ["--help"], prog_name="formicary", standalone_mode=False)
        return result if isinstance(result, int) else DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = None  # its reader left: nothing can be flushed any more
        return DONE
    except OSError as error:
        return _cannot_write(error) if error.errno == errno.ENOSPC else _report(error)
    except Exception as error:  # noqa: BLE001 - the outermost frame: a user never sees a traceback
        return _report(error)


def _cannot_write(error: OSError) -> int:
    sys.stdout = None  # what is left in its buffer cannot be written either
    _say(f"cannot write: {error.strerror or error}")
    return BAD_INPUT


def _report(error: Exception) -> int:
    from formicary.errors import DefinitionError, FormicaryError, UnavailableError

    if isinstance(error, typer.Abort):
        return INTERRUPTED
    if isinstance(error, DefinitionError):
        _say(str(error), prefix="")
        return BAD_INPUT
    if isinstance(error, FormicaryError):
        _say(str(error))
        return UNREACHABLE if isinstance(error, UnavailableError) else _code_of(error)
    # Not before: the error may be that another package is found under the name of ours.
    from brokers.errors import BrokerError, UnknownBrokerError
    from formicary.artifacts.base import ArtifactError

    if isinstance(error, BrokerError | ArtifactError):
        _say(str(error))
        return BAD_INPUT if isinstance(error, UnknownBrokerError) else UNREACHABLE
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        return _report_usage(error, str(format_message()))
    return _report_defect(error)


def _report_usage(error: Exception, message: str) -> int:
    if "\n" in message:
        _say(message, prefix="")
        return BAD_INPUT
    context = getattr(error, "ctx", None)
    command = "formicary" if context is None else context.command_path
    _say(f"{message.rstrip('.')}; see {command} --help")
    return BAD_INPUT


def _code_of(error: Exception) -> int:
    from formicary.errors import ConflictError, DataError, HomeHeldError, InvalidInputError, NotFoundError

    refusals = (InvalidInputError, NotFoundError, ConflictError, HomeHeldError, DataError)
    return BAD_INPUT if isinstance(error, refusals) else UNREACHABLE


def _report_defect(error: Exception) -> int:
    import os
    import traceback

    if os.environ.get("FORMICARY_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    _say(f"{type(error).__name__}: {error} (a defect; FORMICARY_LOG_LEVEL=debug shows where)")
    return JOB_FAILED


def _say(message: str, prefix: str = "formicary: ") -> None:
    print(f"{prefix}{message}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


if __name__ == "__main__":
    main()
