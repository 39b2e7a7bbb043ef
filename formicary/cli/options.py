"""Options that several commands share."""

from enum import Enum
from typing import Annotated

import typer


class Output(str, Enum):  # noqa: UP042 - typer shows the values, and StrEnum changes nothing here
    """How a command answers on stdout."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="text, or json: one document on stdout.")]
ServerOption = Annotated[
    str | None, typer.Option("--server", help="Address of the API (FORMICARY_SERVER).", show_default=False)
]
TokenOption = Annotated[
    str | None, typer.Option("--token", help="Token for the API (FORMICARY_TOKEN).", show_default=False)
]
ParamsOption = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="KEY=VALUE", help="A param; JSON where it is JSON, else text. Repeatable."),
]
HomeOption = Annotated[
    str | None, typer.Option("--home", help="Folder of the embedded parts (FORMICARY_HOME).", show_default=False)
]
DatabaseOption = Annotated[
    str | None, typer.Option("--database-url", help="Postgres (FORMICARY_DATABASE_URL).", show_default=False)
]
BrokerOption = Annotated[
    str | None, typer.Option("--broker-url", help="Broker (FORMICARY_BROKER_URL).", show_default=False)
]
ArtifactsOption = Annotated[
    str | None, typer.Option("--artifacts-url", help="Artifacts (FORMICARY_ARTIFACTS_URL).", show_default=False)
]
ListenOption = Annotated[
    str | None, typer.Option("--listen", help="Address of the API (FORMICARY_LISTEN).", show_default=False)
]
WorkersListenOption = Annotated[
    str | None,
    typer.Option(
        "--workers-listen", help="Address where remote workers connect (FORMICARY_WORKERS_LISTEN).", show_default=False
    ),
]
WorkersOriginsOption = Annotated[
    str | None,
    typer.Option(
        "--workers-origins",
        help="Origins of web pages that may be workers: a,b (FORMICARY_WORKERS_ORIGINS).",
        show_default=False,
    ),
]
LeaseOption = Annotated[
    float | None, typer.Option("--lease-s", help="Life of a queen's leases (FORMICARY_LEASE_S).", show_default=False)
]
AntLeaseOption = Annotated[
    float | None,
    typer.Option("--ant-lease-s", help="Life of an ant's lease (FORMICARY_ANT_LEASE_S).", show_default=False),
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error.", show_default=False)
]
LogFormatOption = Annotated[str | None, typer.Option("--log-format", help="console or json.", show_default=False)]
ReadyFileOption = Annotated[
    str | None, typer.Option("--ready-file", help="File to create when it serves.", show_default=False)
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Say whether all it needs is there, and exit: 0 if so, else 1.")
]
SlotsOption = Annotated[
    int | None, typer.Option("--slots", min=1, max=100_000, help="Tasks that run at once.", show_default=False)
]
TagsOption = Annotated[str | None, typer.Option("--tags", help="Tags of the ant: a,b", show_default=False)]
MethodsOption = Annotated[
    str | None, typer.Option("--methods", help="Methods it runs: SHELL,PYTHON,…", show_default=False)
]
ShellUserOption = Annotated[
    str | None, typer.Option("--shell-user", help="User that runs scripts (FORMICARY_SHELL_USER).", show_default=False)
]
ShellLimitsOption = Annotated[
    str | None,
    typer.Option("--shell-limits", help="What a script may use (FORMICARY_SHELL_LIMITS).", show_default=False),
]
PythonPathOption = Annotated[
    str | None, typer.Option("--python-path", help="Folder of the functions of PYTHON tasks.", show_default=False)
]


def params_of(given: list[str] | None) -> dict[str, object]:
    """Returns ``KEY=VALUE`` texts as params.

    Raises:
        InvalidInputError: one has no ``=`` or no key, or is not text.
    """
    import json

    from formicary.errors import InvalidInputError

    params: dict[str, object] = {}
    for text in given or []:
        _refuse_bytes("-p", text)
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidInputError(f"-p {text!r} is not KEY=VALUE, such as -p region=eu")
        try:
            params[key] = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            params[key] = value
    return params


def labels_of(given: list[str] | None) -> dict[str, str]:
    """Returns ``KEY=VALUE`` texts as labels.

    Raises:
        InvalidInputError: one has no ``=`` or no key, or is not text.
    """
    from formicary.errors import InvalidInputError

    labels: dict[str, str] = {}
    for text in given or []:
        _refuse_bytes("--label", text)
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidInputError(f"--label {text!r} is not KEY=VALUE, such as --label team=data")
        labels[key] = value
    return labels


def words_of(text: str | None) -> tuple[str, ...]:
    """Returns the words of ``a,b``."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _refuse_bytes(flag: str, text: str) -> None:
    """Raises where the shell handed over bytes that are no text in this locale; Python keeps such as surrogates."""
    from formicary.errors import InvalidInputError

    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidInputError(f"{flag} {text!r} is not UTF-8 text; set LANG=C.UTF-8 if it is")


def _refuse_constant(word: str) -> object:
    raise ValueError(word)
