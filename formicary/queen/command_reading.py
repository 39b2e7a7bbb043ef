"""From the body of a message to a command, or to what is wrong with it and where the answer may go."""

import re
from typing import Any, Final, NamedTuple

import msgspec

from formicary.errors import InvalidInputError, Problem
from formicary.events.public import REPLY_TOPIC, CancelJob, Command, SubmitJob
from formicary.nearest import nearest

_COMMANDS: Final[dict[str, type[SubmitJob | CancelJob]]] = {"SubmitJob": SubmitJob, "CancelJob": CancelJob}
_AT: Final = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_REPLY_HINT: Final = (
    "letters, digits, '.', '_' and '-'; of the topics that begin with formicary. only formicary.replies.<name>"
)
_LONGEST: Final = 255

_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Unreadable(NamedTuple):
    """A body that is no command, and what of it could be read for an answer."""

    error: InvalidInputError
    kind: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


def read_command(body: bytes) -> Command | Unreadable:
    """Returns the command that a message holds. Never raises."""
    if not body.strip():
        return Unreadable(_refusal(Problem(message="the body is empty", hint="send one JSON object")))
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        return _unreadable(_lenient(body), str(error))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Unreadable(_refusal(Problem(message=f"the body is no JSON: {error}", hint="send one JSON object")))
    except RecursionError:
        return Unreadable(_refusal(Problem(message="the body is nested too deeply")))


def _lenient(body: bytes) -> dict[str, Any]:
    """Returns those fields of an object that can be read at all: one may hold a number that no type takes."""
    try:
        fields = _fields_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {name: value for name, raw in fields.items() if (value := _value(raw)) is not None}


def _value(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _unreadable(document: dict[str, Any], error: str) -> Unreadable:
    kind = document.get("type")
    reply_to = _text(document, "reply_to")
    return Unreadable(
        _refusal(_problem(kind, error)),
        kind if isinstance(kind, str) and kind in _COMMANDS else None,
        reply_to if reply_to is not None and len(reply_to) <= 200 and re.search(REPLY_TOPIC, reply_to) else None,
        _text(document, "correlation_id"),
    )


def _text(document: dict[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) and len(value) <= _LONGEST else None


def _problem(kind: object, error: str) -> Problem:
    known = ", ".join(_COMMANDS)
    match = _AT.fullmatch(error)
    message, path = match.groups() if match else (error, "")
    if match is None and message.startswith("Expected `object`"):
        return Problem(message="the body is no JSON object", hint='send one, such as {"type": "SubmitJob", …}')
    if kind is None:
        return Problem(path="type", message="is missing", hint=f"use {known}")
    if not isinstance(kind, str) or kind not in _COMMANDS:
        hint = nearest(kind, _COMMANDS) if isinstance(kind, str) else ""
        return Problem(path="type", message=f"{str(kind)[:50]!r} is no command", hint=hint or f"use {known}")
    if unknown := _UNKNOWN.match(message):
        fields = [field.name for field in msgspec.structs.fields(_COMMANDS[kind])]
        hint = nearest(unknown[1], fields) or f"{kind} has {', '.join(fields)}"
        return Problem(path=unknown[1][:_LONGEST], message="is no field of this command", hint=hint)
    if path == "reply_to" and message.startswith("Expected `str` matching"):
        return Problem(path=path, message="is no topic that answers may go to", hint=_REPLY_HINT)
    return Problem(path=path, message=message)


def _refusal(problem: Problem) -> InvalidInputError:
    return InvalidInputError(problem.text("").removeprefix(": ").strip(), [problem])
