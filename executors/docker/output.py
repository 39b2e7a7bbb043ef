"""The output of a running container, on its way to the log.

Engines give a container's end two seconds: what they have not got rid of by then they drop. A container cannot have
ended with more than some 200 KB in its pipes, so reading never stops for long while the log is slow: what is read ahead
waits in memory, beyond the first megabyte slowly. Where that is full too, the container waits to write.
"""

import asyncio
import contextlib

import aiohttp
from aiodocker.stream import Message
from aiodocker.stream import Stream as Attached

from executors.base import Sink, Stream
from executors.output import PIECE_BYTES

_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}
#: How long the engine may take for the next piece, or the end, of a container that has ended, in seconds.
_REST_S = 20.0
#: How much is read ahead of the sink as it comes, and at most: an ant's lease is over before it is that much.
_AHEAD_BYTES = 1024 * 1024
_MOST_AHEAD_BYTES = 12 * 1024 * 1024
#: From one frame (of 32 KB, as a rule) to the next, in seconds, in between.
_SLOWLY_S = 0.2


class Output:
    """Moves output to a sink, in order."""

    def __init__(self, attached: Attached, sink: Sink) -> None:
        self._attached = attached
        self._sink = sink
        self._read_count = 0
        self._is_asking = False
        #: What was read and not moved yet; None is its end.
        self._ahead: asyncio.Queue[Message | None] = asyncio.Queue()
        self._ahead_bytes = 0
        self._has_moved = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        #: Ends with the output, or where the engine is lost.
        self.moving = asyncio.create_task(self._move())

    async def rest(self) -> bool:
        """Returns when all has been moved; False where the engine holds back the rest. The container has ended."""
        while True:
            read_count = self._read_count
            await asyncio.wait({self.moving}, timeout=_REST_S)
            if self.moving.done():
                self.moving.result()
                return True
            if self._is_asking and self._read_count == read_count and not self._ahead_bytes:
                self.moving.cancel()
                return False

    async def _move(self) -> None:
        try:
            while (message := await self._ahead.get()) is not None:
                data = message.data
                for at in range(0, len(data), PIECE_BYTES):
                    await self._sink.write(_STREAMS.get(message.stream, Stream.STDOUT), data[at : at + PIECE_BYTES])
                self._ahead_bytes -= len(data)
                self._has_moved.set()
            await self._reading
        finally:
            self._reading.cancel()
            await self._attached.close()

    async def _read(self) -> None:
        try:
            while (message := await self._next()) is not None:
                self._read_count += 1
                self._ahead_bytes += len(message.data)
                self._ahead.put_nowait(message)
                await self._room()
        finally:
            self._ahead.put_nowait(None)

    async def _room(self) -> None:
        """Returns when more may be read."""
        self._has_moved.clear()
        if self._ahead_bytes > _AHEAD_BYTES:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SLOWLY_S):
                    await self._has_moved.wait()
        while self._ahead_bytes > _MOST_AHEAD_BYTES:
            self._has_moved.clear()
            await self._has_moved.wait()

    async def _next(self) -> Message | None:
        """Returns the next frame; None at the end, or where the engine was lost."""
        self._is_asking = True
        try:
            return await self._attached.read_out()
        except (aiohttp.ClientError, ConnectionError):
            return None
        finally:
            self._is_asking = False
