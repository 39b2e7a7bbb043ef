"""What is no HTTP, or more than any request of ours: answered in the same form as every other mistake."""

import asyncio
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong

from formicary.queen.api import problems
from formicary.queen.api.wire import ProblemDocument

log = structlog.get_logger(__name__)

_TOO_LONG: Final = "the address or a header is longer than 8190 bytes"


class Connection(web.RequestHandler):
    """A connection whose unreadable requests get a problem document; what they say is logged for who looks for it."""

    __slots__ = ()

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(manager, loop=loop, access_log=None)  # type: ignore[arg-type] # None: no log of accesses

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Returns the answer to a request that could not be read; the connection ends with it."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        log.debug("request_unreadable", remote=request.remote, reason=str(exc))
        response = problems.respond(_problem(status, exc, message or ""))
        response.force_close()
        return response


def _problem(status: int, exc: BaseException | None, message: str) -> ProblemDocument:
    if isinstance(exc, LineTooLong):
        return problems.plain(431, "ERR_TOO_LARGE", _TOO_LONG)
    # The parser draws an arrow under the place, in a line of its own.
    words = " ".join(" ".join(line for line in message.splitlines() if line.strip() != "^").split())
    if isinstance(exc, ContentEncodingError):
        return problems.plain(415, "ERR_BODY", f"the body cannot be unpacked: {words}; send it as it is, or with gzip")
    return problems.plain(status, "ERR_HTTP", f"this is no request that can be read: {words}")
