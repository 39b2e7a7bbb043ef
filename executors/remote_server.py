"""Where remote workers connect: ``GET /v1/workers`` becomes a WebSocket for those who may.

A web page's browser sends its origin, which must be on the list: pages elsewhere reach loopback addresses too. It
cannot send headers, hence the token may stand in the first message.
"""

import asyncio
import hmac
from typing import Final

import structlog
from aiohttp import web

from executors.errors import ExecutorError
from executors.options import ExecutorOptions
from executors.remote_hub import WorkerHub
from executors.remote_messages import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    BadMessageError,
    Error,
    Register,
    Registered,
    decode,
    encode,
)
from executors.remote_worker import RemoteWorker

log = structlog.get_logger(__name__)

PATH: Final = "/v1/workers"
#: How long a connection may take to register, in seconds, and how many may be at it.
_REGISTER_S: Final = 10.0
_MAX_STRANGERS: Final = 100
#: What a goodbye to a worker may take, in seconds.
_CLOSE_S: Final = 1.0
#: Codes with which connections are closed: the ant stops, wrong registration, wrong token, none in time.
_GOING_AWAY: Final = 1001
_BAD_REGISTRATION: Final = 4400
_UNAUTHORIZED: Final = 4401
_TOO_LATE: Final = 4408


class WorkerServer:
    """The listener of one ant."""

    def __init__(self, options: ExecutorOptions, hub: WorkerHub) -> None:
        self._options = options
        self._hub = hub
        self._runner: web.AppRunner | None = None
        self._sockets: set[web.WebSocketResponse] = set()
        self._strangers = 0

    @property
    def port(self) -> int:
        """Returns the port that is listened on."""
        assert self._runner is not None
        port: int = self._runner.addresses[0][1]
        return port

    async def open(self) -> None:
        """Listens.

        Raises:
            ExecutorError: the address cannot be used.
        """
        host, port = self._options.workers_listen or ("", 0)
        app = web.Application()
        app.router.add_get(PATH, self._connect)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as exc:
            await self.close()
            why = exc.strerror or exc
            raise ExecutorError(f"cannot listen for workers on {host}:{port}: {why}; change the address") from exc
        log.info("workers_welcome", host=host, port=self.port)

    async def close(self) -> None:
        """Sends all workers away and stops listening. Safe twice."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await asyncio.gather(*(socket.close(code=_GOING_AWAY, message=b"the ant stops") for socket in self._sockets))
        await runner.cleanup()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            log.warning("worker_refused", peer=request.remote, reason=refusal.text)
            return refusal
        socket = web.WebSocketResponse(
            timeout=_CLOSE_S, autoping=False, max_msg_size=MAX_MESSAGE_BYTES, compress=False, protocols=(SUBPROTOCOL,)
        )
        if not socket.can_prepare(request):
            return web.Response(status=426, text="this is a WebSocket for workers; see docs/executors/websocket.md\n")
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await self._converse(socket, request)
        finally:
            self._sockets.discard(socket)
        return socket

    def _refusal(self, request: web.Request) -> web.Response | None:
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._options.workers_origins:
            text = f"pages of {origin} may not be workers; list the origin in FORMICARY_WORKERS_ORIGINS\n"
            return web.Response(status=403, text=text)
        if "Authorization" in request.headers and not self._is_token(_bearer(request)):
            return web.Response(status=401, text="the token is not the one of FORMICARY_WORKERS_TOKEN\n")
        if self._strangers >= _MAX_STRANGERS:
            return web.Response(status=503, text="too many connections that did not register yet\n")
        return None

    async def _converse(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        registration = await self._registration(socket, is_known="Authorization" in request.headers)
        if registration is None:
            return
        worker = RemoteWorker(
            socket, request.transport, registration, self._options.workers_heartbeat_s, self._hub.settle
        )
        worker.tell(Registered(heartbeat_s=self._options.workers_heartbeat_s))
        self._hub.join(worker)
        try:
            await worker.serve()
        finally:
            self._hub.leave(worker)

    async def _registration(self, socket: web.WebSocketResponse, *, is_known: bool) -> Register | None:
        """Returns what the worker says first; None where it was sent away."""
        self._strangers += 1
        try:
            async with asyncio.timeout(_REGISTER_S):
                message = decode(await socket.receive_str())
            if not isinstance(message, Register):
                raise BadMessageError("the first message must be register; see docs/executors/websocket.md")
        except BadMessageError as exc:
            await self._send_away(socket, Error(code="bad_message", message=str(exc)), _BAD_REGISTRATION)
            return None
        except TimeoutError:
            error = Error(code="bad_message", message=f"no register came within {_REGISTER_S:g} s")
            await self._send_away(socket, error, _TOO_LATE)
            return None
        except TypeError:  # no text: closed, or a binary message
            error = Error(code="bad_message", message="messages are JSON text")
            await self._send_away(socket, error, _BAD_REGISTRATION)
            return None
        finally:
            self._strangers -= 1
        if not is_known and not self._is_token(message.token):
            error = Error(code="unauthorized", message="the token is not the one of FORMICARY_WORKERS_TOKEN")
            await self._send_away(socket, error, _UNAUTHORIZED)
            return None
        return message

    async def _send_away(self, socket: web.WebSocketResponse, error: Error, code: int) -> None:
        log.warning("worker_refused", reason=error.message)
        if not socket.closed:
            try:
                await socket.send_str(encode(error))
            except ConnectionError:
                return
            await socket.close(code=code, message=error.code.encode())

    def _is_token(self, given: str | None) -> bool:
        wanted = self._options.workers_token
        if wanted is None:
            return True
        return hmac.compare_digest((given or "").encode("utf-8", "surrogatepass"), wanted.encode())


def _bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
