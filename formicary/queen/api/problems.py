"""Errors as problem documents (RFC 9457)."""

import msgspec
from aiohttp import web

from formicary.errors import (
    ConflictError,
    DataError,
    ExpiredError,
    FormicaryError,
    InvalidInputError,
    NotFoundError,
    Problem,
    UnavailableError,
)
from formicary.queen.api.wire import ProblemDocument, encode

CONTENT_TYPE = "application/problem+json"

_TITLES = {
    400: "The request cannot be read",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "The state forbids it",
    410: "Expired",
    413: "The body is too large",
    415: "Unsupported media type",
    431: "The head of the request is too large",
    422: "The input is wrong",
    500: "Internal error",
    503: "Not available now",
}


class RequestError(FormicaryError):
    """A request that is wrong as HTTP, whatever it asks for; ``status`` says how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def document(error: FormicaryError) -> ProblemDocument:
    """Returns the problem document of an error."""
    problems = error.problems if isinstance(error, InvalidInputError) else ()
    return plain(status_of(error), error.code, str(error), errors=problems or msgspec.UNSET)


def plain(
    status: int, code: str, detail: str, errors: tuple[Problem, ...] | msgspec.UnsetType = msgspec.UNSET
) -> ProblemDocument:
    """Returns a problem document made of its parts."""
    return ProblemDocument(
        type=f"urn:formicary:problem:{code}",
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=detail.encode("utf-8", "backslashreplace").decode(),
        code=code,
        errors=errors,
    )


def status_of(error: FormicaryError) -> int:
    """Returns the HTTP status of an error."""
    match error:
        case RequestError():
            return error.status
        case InvalidInputError() | DataError():
            return 422
        case ExpiredError():
            return 410
        case NotFoundError():
            return 404
        case ConflictError():
            return 409
        case UnavailableError():
            return 503
        case _:
            return 500


def answer(error: FormicaryError) -> web.Response:
    """Returns the answer to a request that raised ``error``."""
    headers = {}
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return respond(document(error), headers)


def respond(problem: ProblemDocument, headers: dict[str, str] | None = None) -> web.Response:
    """Returns the answer that carries ``problem``."""
    return web.Response(status=problem.status, body=encode(problem), content_type=CONTENT_TYPE, headers=headers)
