"""The HTTP server of a queen.

There is no login yet. So it listens on loopback only, and answers neither a page of another site (``Origin``) nor one
that had its name pointed at this machine (``Host``): a submitted job runs commands.
"""

import asyncio
import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from formicary.errors import FormicaryError, InvalidInputError
from formicary.queen.api import problems
from formicary.queen.api.problems import RequestError
from formicary.queen.api.reading import MAX_BODY_BYTES
from formicary.queen.api.routes import Handler, Routes
from formicary.queen.api.wire_protocol import Connection
from formicary.queen.manager.manager import Manager
from formicary.service import Service

log = structlog.get_logger(__name__)

#: How long answers under way may take when the server stops, in seconds.
_SHUTDOWN_S = 2.0


class ApiServer(Service):
    """Serves the API at ``listen`` (host, port; port 0 chooses a free one).

    ``started`` is set when it accepts connections; ``address`` is then ``http://host:port``. Stopping ends waits and
    streams, lets other answers finish for two seconds, then closes.

    Raises:
        InvalidInputError: ``listen`` is not a loopback address, or (from ``start``) it is taken.
    """

    def __init__(self, manager: Manager, listen: tuple[str, int]) -> None:
        super().__init__()
        self.check_listen(listen)
        self._manager = manager
        self._listen = listen
        self.address = ""

    @staticmethod
    def check_listen(listen: tuple[str, int]) -> None:
        """Raises ``InvalidInputError`` where ``listen`` is not a loopback address."""
        if not is_loopback(listen[0]):
            raise InvalidInputError(
                f"FORMICARY_LISTEN: {listen[0]} is not a loopback address, and the API has no login yet: "
                "listen on 127.0.0.1 and reach it through a tunnel, such as ssh -L"
            )

    @staticmethod
    def check_free(listen: tuple[str, int]) -> None:
        """Raises ``InvalidInputError`` where ``listen`` cannot be listened on, as far as can be told before."""
        with socket.socket(socket.AF_INET6 if ":" in listen[0] else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(listen)
            except OSError as error:
                raise _cannot_listen(listen, error) from error

    async def run(self) -> None:
        """Serves until cancelled."""
        closing = asyncio.Event()
        runner = web.AppRunner(
            application(self._manager, closing),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        server: asyncio.Server | None = None
        try:
            server = await self._listen_on(runner)
            self.started.set()
            await asyncio.Event().wait()
        finally:
            closing.set()
            if server is not None:
                server.close()
            await runner.cleanup()

    async def _listen_on(self, runner: web.AppRunner) -> asyncio.Server:
        host, port = self._listen
        loop, manager = asyncio.get_running_loop(), runner.server
        assert manager is not None, "the runner was set up"
        try:
            server = await loop.create_server(lambda: Connection(manager, loop), host, port, backlog=1024)
        except OSError as error:
            raise _cannot_listen(self._listen, error) from error
        bound = server.sockets[0].getsockname()[1]
        self.address = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        log.info("api_listens", address=self.address)
        return server


def _cannot_listen(listen: tuple[str, int], error: OSError) -> InvalidInputError:
    host, port = listen
    reason = error.strerror or str(error)
    return InvalidInputError(
        f"FORMICARY_LISTEN: cannot listen on {host}:{port} ({reason}); choose another with --listen"
    )


def application(manager: Manager, closing: asyncio.Event) -> web.Application:
    """Returns the application, for a server or a test."""
    app = web.Application(middlewares=[_answer_errors], client_max_size=MAX_BODY_BYTES)
    app.add_routes(Routes(manager, closing).table())
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        _refuse_strangers(request)
        return await handler(request)
    except FormicaryError as error:
        return _answer(request, error)
    except web.HTTPException as error:
        return _routing_problem(request, error)
    except Exception as error:
        log.exception("request_failed", method=request.method, path=request.path, error=repr(error))
        return problems.respond(problems.plain(500, "ERR_INTERNAL", "this is a defect; the queen's log has the story"))


def _answer(request: web.Request, error: FormicaryError) -> web.Response:
    if problems.status_of(error) >= 500:
        log.warning("request_unanswered", method=request.method, path=request.path, error=str(error))
    return problems.answer(error)


def _routing_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    detail = {
        404: f"no route {request.path}",
        405: f"{request.method} is not possible on {request.path}",
        413: f"the body is larger than {MAX_BODY_BYTES} bytes",
    }.get(error.status, error.reason)
    code = {404: "ERR_NO_ROUTE", 405: "ERR_METHOD", 413: "ERR_TOO_LARGE"}.get(error.status, "ERR_REQUEST")
    return problems.respond(problems.plain(error.status, code, detail), headers)


def _refuse_strangers(request: web.Request) -> None:
    headers = request.headers
    origin, host = headers.get("Origin"), headers.get("Host")
    if origin is not None and not _is_local(origin):
        raise RequestError(403, "ERR_ORIGIN", "pages of other sites may not use this API")
    if host is not None and not _is_local(f"//{host}"):
        raise RequestError(403, "ERR_HOST", "the API answers to loopback names only, such as 127.0.0.1")


@lru_cache(maxsize=64)
def _is_local(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Returns whether ``host`` is a name or address of this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
