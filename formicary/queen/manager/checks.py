"""Checks of what people send, before anything is stored: every refusal names the key and what would be right."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import msgspec

from formicary.errors import InvalidInputError, NotFoundError, Problem
from formicary.ids import JobId
from formicary.model.jobs import JobRequest
from formicary.model.parse_kinds import NAME_HINT, NAME_PATTERN

#: The largest ``params`` of a job, as JSON, in bytes.
MAX_PARAMS_BYTES = 256 * 1024
#: The largest ``labels`` of a job, as JSON, in bytes.
MAX_LABELS_BYTES = 16 * 1024
MAX_KEY_LENGTH = 255

_MAX_DEPTH = 64
_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_NAME = re.compile(NAME_PATTERN)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def job_id(text: str) -> JobId:
    """Returns ``text`` as a job's id.

    Raises:
        NotFoundError: no job can have it.
    """
    if not _UUID.fullmatch(text.lower()):
        raise NotFoundError(f"no job {printable(text)!r}; ids look like 01890a5d-ac96-774b-bcce-b302099a8057")
    return JobId(text.lower())


def printable(text: str) -> str:
    """Returns the beginning of ``text``, fit for a message."""
    short = text if len(text) <= 100 else text[:100] + "…"
    return short.encode("utf-8", "backslashreplace").decode()


def check_request(request: JobRequest) -> None:
    """Checks everything about a request but its params.

    Raises:
        InvalidInputError: listing all that is wrong.
    """
    problems = [*_text("job_type", request.job_type), *_numbers(request), *_time(request), *_labels(request.labels)]
    if request.idempotency_key is not None:
        problems += _key(request.idempotency_key)
    if problems:
        refuse(problems)


def encode_params(params: Mapping[str, Any]) -> str:
    """Returns ``params`` as JSON text, checked: what is stored can be rendered, put into an environment and sent.

    Raises:
        InvalidInputError: naming every key whose value is refused.
    """
    problems = list(_json("params", params, 0))
    if problems:
        refuse(problems)
    encoded = msgspec.json.encode(params)
    if len(encoded) > MAX_PARAMS_BYTES:
        refuse([_largest(params, len(encoded))])
    return encoded.decode()


def refuse(problems: list[Problem]) -> None:
    """Raises an ``InvalidInputError`` that lists ``problems``."""
    raise InvalidInputError("; ".join(problem.text("").removeprefix(": ").strip() for problem in problems), problems)


def missing_params(required: tuple[str, ...], params: Mapping[str, Any]) -> list[Problem]:
    """Returns a problem for every required param that is missing."""
    return [
        Problem(path=f"params.{name}", message="missing", hint="the definition requires it")
        for name in required
        if name not in params
    ]


def _text(path: str, text: str) -> Iterator[Problem]:
    if "\0" in text:
        yield Problem(path=path, message="holds a NUL character", hint="remove it or encode the value, as base64 say")
    elif not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        yield Problem(path=path, message="holds a lone surrogate", hint="text must be valid Unicode")


def _json(path: str, value: object, depth: int) -> Iterator[Problem]:
    match value:
        case str():
            yield from _text(path, value)
        case bool() | None:
            return
        case int() if value not in _INT64:
            yield Problem(path=path, message="is an integer of more than 64 bits", hint="write it as a string")
        case float() if not isfinite(value):
            yield Problem(path=path, message=f"is {value}, which JSON cannot hold")
        case dict() | list() if depth >= _MAX_DEPTH:
            yield Problem(path=path, message=f"is nested deeper than {_MAX_DEPTH} levels")
        case dict():
            for key, item in value.items():
                yield from _text(f"{path}.{printable(key)}", key)
                yield from _json(f"{path}.{printable(key)}", item, depth + 1)
        case list():
            for number, item in enumerate(value):
                yield from _json(f"{path}[{number}]", item, depth + 1)


def _numbers(request: JobRequest) -> Iterator[Problem]:
    if request.priority is not None and request.priority not in _INT32:
        yield Problem(path="priority", message="is out of range", hint="from -2147483648 to 2147483647")
    if request.version is not None and not 1 <= request.version < 2**31:
        yield Problem(path="version", message="is out of range", hint="versions count from 1")


def _time(request: JobRequest) -> Iterator[Problem]:
    at = request.scheduled_at
    if at is None:
        return
    if at.tzinfo is None:
        hint = "such as 2030-01-31T06:00:00Z"
        yield Problem(path="scheduled_at", message="has no time zone", hint=hint)
        return
    try:
        is_storable = as_utc(at).year >= 1970
    except OverflowError:
        is_storable = False
    if not is_storable:
        yield Problem(path="scheduled_at", message="is out of range", hint="from 1970 to 9999")


def as_utc(at: datetime) -> datetime:
    """Returns ``at`` in UTC."""
    return at.astimezone(UTC)


def _labels(labels: Mapping[str, str]) -> Iterator[Problem]:
    size_bytes = 0
    for key, value in labels.items():
        path = f"labels.{printable(key)}"
        if not _NAME.fullmatch(key):
            yield Problem(path=path, message="is no valid name of a label", hint=NAME_HINT)
        yield from _text(path, value)
        size_bytes += len(key) + len(value) + 6
    if size_bytes > MAX_LABELS_BYTES:
        yield Problem(path="labels", message=f"are larger than {MAX_LABELS_BYTES} bytes")


def _key(key: str) -> Iterator[Problem]:
    if not 1 <= len(key) <= MAX_KEY_LENGTH or not key.isprintable():
        hint = f"1 to {MAX_KEY_LENGTH} printable characters"
        yield Problem(path="idempotency_key", message="is no usable key", hint=hint)


def _largest(params: Mapping[str, Any], size_bytes: int) -> Problem:
    sizes = {key: len(msgspec.json.encode(value)) for key, value in params.items()}
    largest = max(sizes, key=sizes.__getitem__)
    return Problem(
        path=f"params.{printable(largest)}",
        message=f"takes {sizes[largest]} of {size_bytes} bytes; params may have {MAX_PARAMS_BYTES}",
        hint="pass large values by reference, as an artifact or a URL",
    )
