"""A way to a real engine over TCP, which can break off, or fall silent: connections stay open, nothing comes out."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_PIECE_BYTES = 64 * 1024


class Proxy:
    """Forwards connections of a free port to an engine's socket."""

    def __init__(self, engine_url: str) -> None:
        self._socket = engine_url.removeprefix("unix://")
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._server: asyncio.Server | None = None
        self._ways: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.url = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    def fall_silent(self) -> None:
        """Forwards nothing any more, either way; new connections are still taken."""
        self._speaks.clear()

    def speak(self) -> None:
        """Forwards again, what has waited first."""
        self._speaks.set()

    def break_off(self) -> None:
        """Ends all connections; new ones are served."""
        for way in self._ways:
            way.cancel()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.create_task(self._serve(reader, writer))
        self._ways.add(way)
        way.add_done_callback(self._ways.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await self._speaks.wait()
            there_reader, there_writer = await asyncio.open_unix_connection(self._socket)
            with contextlib.closing(there_writer):
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(reader, there_writer))
                    both.create_task(self._forward(there_reader, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                await self._speaks.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
