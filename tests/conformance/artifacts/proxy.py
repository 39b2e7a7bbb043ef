"""A proxy before a real HTTP server that does to chosen requests what networks and busy servers do."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

CHUNK_BYTES = 64 * 1024


class Request(NamedTuple):
    """The head of a request."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class Fault:
    """What happens to the next ``times`` requests that are ``meant``; positions count the bytes of a body."""

    meant: Callable[[Request], bool]
    times: int = 1
    #: Answers so, and passes nothing on.
    status: int = 0
    code: str = "InternalError"
    #: Cuts both connections there.
    cut_request_at: int | None = None
    cut_response_at: int | None = None
    #: Changes one byte.
    flip_request_at: int | None = None
    flip_response_at: int | None = None
    #: Is set when the request does not go on from then; one that gets something, when that something comes.
    stalled: asyncio.Event | None = None
    #: Waits so long before every 64 KiB of a body.
    pause_s: float = 0.0


class _CutError(Exception):
    """The connection is to be cut here."""


@dataclass
class Proxy:
    """Listens on a port of its own; ``faults`` are used up in their order, ``seen`` is every request."""

    host: str
    port: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listens, always on the port of the first time."""
        port = int(self.endpoint.rpartition(":")[2]) if self.endpoint else 0
        listener = socket.create_server(("127.0.0.1", port))
        # Else the kernel would take megabytes at once, however slow the proxy is.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)
        self._server = await asyncio.start_server(self._accept, sock=listener)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Refuses new connections and cuts those that there are."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port, limit=CHUNK_BYTES)
        client, server = _Side(reader, writer), _Side(upstream_reader, upstream_writer)
        try:
            with contextlib.suppress(_CutError, ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._exchange(client, server)
        finally:
            for side in (client, server):
                side.writer.transport.abort()

    async def _exchange(self, client: "_Side", server: "_Side") -> None:
        head = await client.head()
        method, target, _ = head.first.split(" ")
        request = Request(method, target, head.headers)
        self.seen.append(request)
        fault = self._fault(request)
        if fault.status:
            await _refuse(client, request, head, fault)
            return
        if fault.stalled is not None and request.method != "GET":
            await _stand_still(fault.stalled)
        server.writer.write(head.raw)
        if head.headers.get("expect"):
            client.writer.write((await server.head()).raw)
        await _pass(_body(client, head), server, fault, fault.cut_request_at, fault.flip_request_at)
        answer = await server.head()
        if fault.cut_response_at != 0:
            client.writer.write(answer.raw)
        has_body = request.method != "HEAD" and answer.first.split(" ")[1] not in {"204", "304"}
        chunks = _body(server, answer) if has_body else _nothing()
        await _pass(chunks, client, fault, fault.cut_response_at, fault.flip_response_at)

    def _fault(self, request: Request) -> Fault:
        for fault in self.faults:
            if fault.times and fault.meant(request):
                fault.times -= 1
                return fault
        return Fault(meant=lambda _: True)


class _Head(NamedTuple):
    raw: bytes
    first: str
    headers: dict[str, str]


class _Side(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> _Head:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip().split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        return _Head(raw, first, headers)


async def _body(side: _Side, head: _Head) -> AsyncIterator[bytes]:
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        while True:
            size = await side.reader.readuntil(b"\r\n")
            yield size + await side.reader.readexactly(int(size, 16) + 2)
            if int(size, 16) == 0:
                return
    left = int(head.headers.get("content-length", "0"))
    while left:
        chunk = await side.reader.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise _CutError
        left -= len(chunk)
        yield chunk


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _pass(chunks: AsyncIterator[bytes], to: _Side, fault: Fault, cut_at: int | None, flip_at: int | None) -> None:
    position = 0
    if cut_at == 0:
        async for _ in chunks:
            pass  # the other side has done its work; nobody hears of it
        raise _CutError
    async for chunk in chunks:
        if fault.stalled is not None:
            await _stand_still(fault.stalled)
        if fault.pause_s:
            await asyncio.sleep(fault.pause_s)
        if flip_at is not None and position <= flip_at < position + len(chunk):
            chunk = _flipped(chunk, flip_at - position)  # noqa: PLW2901 - the damaged one goes on
        to.writer.write(chunk if cut_at is None else chunk[: cut_at - position])
        position += len(chunk)
        await to.writer.drain()
        if cut_at is not None and position >= cut_at:
            raise _CutError
    await to.writer.drain()


async def _stand_still(stalled: asyncio.Event) -> None:
    stalled.set()
    await asyncio.get_running_loop().create_future()


def _flipped(chunk: bytes, index: int) -> bytes:
    return chunk[:index] + bytes([chunk[index] ^ 1]) + chunk[index + 1 :]


async def _refuse(client: _Side, request: Request, head: _Head, fault: Fault) -> None:
    if head.headers.get("expect"):
        client.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for _ in _body(client, head):
        pass
    text = f"<Error><Code>{fault.code}</Code><Message>of the proxy</Message></Error>"
    body = b"" if request.method == "HEAD" else text.encode()
    answer = f"HTTP/1.1 {fault.status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    client.writer.write(answer.encode() + body)
    await client.writer.drain()
