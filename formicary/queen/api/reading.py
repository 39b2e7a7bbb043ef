"""Reading requests: bodies within a limit, queries and JSON with errors that say what would be right."""

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from formicary.errors import InvalidInputError, Problem
from formicary.model.jobs import JobRequest
from formicary.model.states import JobState
from formicary.queen.api.problems import RequestError
from formicary.queen.manager.output import Extent

#: The largest body of any request, in bytes.
MAX_BODY_BYTES = 8 * 1024 * 1024
#: The longest ``wait_s``.
MAX_WAIT_S = 300.0

#: The largest ``tail``.
MAX_TAIL_LINES = 1_000_000

T = TypeVar("T")

_REQUEST = msgspec.json.Decoder(JobRequest)
_AT = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /api/v1/jobs/batch``."""

    jobs: list[msgspec.Raw]


_BATCH = msgspec.json.Decoder(BatchRequest)


async def body(request: web.Request) -> bytes:
    """Returns the whole body.

    Raises:
        RequestError: 413 where it is larger than ``MAX_BODY_BYTES`` unpacked, 400 where it is cut off or badly packed.
    """
    try:
        if (request.content_length or 0) <= MAX_BODY_BYTES:
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        pass
    except web.RequestPayloadError as error:
        reason = " ".join(str(error).split())
        raise RequestError(400, "ERR_BODY", f"the body cannot be read: {reason}") from error
    raise RequestError(413, "ERR_TOO_LARGE", f"the body is larger than {MAX_BODY_BYTES} bytes")


def text(content: bytes) -> str:
    """Returns a body as text.

    Raises:
        InvalidInputError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem(message=f"byte {error.start} is not UTF-8", line=line, column=1, hint="save it as UTF-8")
        raise InvalidInputError(problem.text("body"), [problem]) from error


def job_request(content: bytes | msgspec.Raw) -> JobRequest:
    """Returns a submission.

    Raises:
        RequestError: 400 where the body is no JSON.
        InvalidInputError: naming the key that is wrong.
    """
    return decode(_REQUEST, content, '{"job_type": "NAME"}')


def batch(content: bytes) -> list[JobRequest | InvalidInputError]:
    """Returns the items of a batch, each a submission or what is wrong with it.

    Raises:
        RequestError: 400 where the body is no JSON.
        InvalidInputError: it is no batch.
    """
    return [_item(raw) for raw in decode(_BATCH, content, '{"jobs": [{"job_type": "NAME"}]}').jobs]


def _item(raw: msgspec.Raw) -> JobRequest | InvalidInputError:
    try:
        return job_request(raw)
    except InvalidInputError as error:
        return error
    except RequestError as error:
        return InvalidInputError(str(error))


def decode(decoder: msgspec.json.Decoder[T], content: bytes | msgspec.Raw, example: str) -> T:
    """Returns ``content`` decoded, its errors translated; ``example`` says what would be right."""
    if not bytes(content).strip():
        raise RequestError(400, "ERR_JSON", f"the body is empty; send JSON, such as {example}")
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        match = _AT.fullmatch(str(error))
        message, path = match.groups() if match else (str(error), "")
        problem = Problem(message=message, path=path, hint=_hint(message, path, example))
        raise InvalidInputError(": ".join(filter(None, (path, message))) + _behind(problem.hint), [problem]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, "ERR_JSON", f"the body is no JSON: {error}; send such as {example}") from error
    except RecursionError as error:
        raise RequestError(400, "ERR_JSON", "the body is nested too deeply") from error


def _hint(message: str, path: str, example: str) -> str:
    if "RFC3339" in message:
        return "write it like 2030-01-31T06:00:00Z"
    return "" if path else f"send JSON, such as {example}"


def _behind(hint: str) -> str:
    return f"; {hint}" if hint else ""


def with_key(submission: JobRequest, request: web.Request) -> JobRequest:
    """Returns the submission with the key of the header ``Idempotency-Key``.

    Raises:
        InvalidInputError: the body has another one.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return submission
    if submission.idempotency_key not in (None, key):
        problem = Problem(
            path="idempotency_key", message="differs from the header Idempotency-Key", hint="use one of them"
        )
        raise InvalidInputError("idempotency_key differs from the header Idempotency-Key; use one of them", [problem])
    return msgspec.structs.replace(submission, idempotency_key=key)


def known_query(request: web.Request, *names: str) -> None:
    """Raises where the query has another name than ``names``.

    Raises:
        InvalidInputError: naming it.
    """
    unknown = [name for name in request.query if name not in names]
    if unknown:
        raise _query_error(unknown[0], "is no parameter of this route", f"use {', '.join(names) or 'none'}")


def number(request: web.Request, name: str, least: float, most: float) -> float | None:
    """Returns a number of the query, None where it is absent.

    Raises:
        InvalidInputError: it is none, or out of range.
    """
    given = request.query.get(name)
    if given is None:
        return None
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise _query_error(name, f"{given[:50]!r} is no number from {least:.0f} to {most:.0f}", "")
    return value


def integer(request: web.Request, name: str, least: int, most: int) -> int | None:
    """Returns a whole number of the query, None where it is absent."""
    value = number(request, name, least, most)
    if value is not None and value != int(value):
        raise _query_error(name, f"{request.query[name][:50]!r} is not whole", "")
    return None if value is None else int(value)


def flag(request: web.Request, name: str) -> bool:
    """Returns whether a switch of the query is on."""
    given = request.query.get(name, "0")
    if given not in ("0", "1", "true", "false"):
        raise _query_error(name, f"{given[:50]!r} is neither 1 nor 0", "")
    return given in ("1", "true")


def log_extent(request: web.Request) -> Extent:
    """Returns which part of a log is asked for.

    Raises:
        InvalidInputError: two of them do not go together.
    """
    tail = integer(request, "tail", 0, MAX_TAIL_LINES)
    after, limit = integer(request, "after", 0, 2**63 - 1), integer(request, "limit", 1, 2**31 - 1)
    if tail is not None and after is not None:
        raise _query_error("after", "does not go with tail", "use one of them")
    if limit is not None and flag(request, "follow"):
        raise _query_error("limit", "does not go with follow", "use one of them")
    return Extent(after or 0, tail, limit)


def job_state(request: web.Request) -> JobState | None:
    """Returns the state that a listing asks for."""
    given = request.query.get("state")
    if given is None:
        return None
    states: Sequence[JobState] = tuple(JobState)
    if given.upper() not in states:
        raise _query_error("state", f"{given[:50]!r} is no state", f"one of {', '.join(states)}")
    return JobState(given.upper())


def _query_error(name: str, message: str, hint: str) -> InvalidInputError:
    problem = Problem(path=f"?{name}", message=message, hint=hint)
    return InvalidInputError(f"{name}: {message}{_behind(hint)}", [problem])
