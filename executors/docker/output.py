"""The output of a running container, on its way to the log.

Engines give a container's end two seconds: what they have not got rid of by then they drop. A container cannot have
ended with more than some 200 KB in its pipes, so reading never stops for long while the log is slow: what is read ahead
waits in memory, beyond the first megabyte slowly. Where that is full too, the container waits to write.

A stream that ends before its container does was broken off on the way, or the container closed its own end: it is
opened anew, and only if more comes then is there a gap to tell of.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import aiohttp
from aiodocker.stream import Message
from aiodocker.stream import Stream as Attached

from executors.base import Sink, Stream
from executors.docker.errors import EngineError
from executors.output import PIECE_BYTES

#: A number that no stream of a container has.
_OURS = -1
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR, _OURS: Stream.SYSTEM}
_GAP = Message(_OURS, b"the output of the container broke off here for a while; some may be missing\n")
#: How long the engine may take for the next piece, or the end, of a container that has ended, in seconds.
_REST_S = 20.0
#: How much is read ahead of the sink as it comes, and at most: an ant's lease is over before it is that much.
_AHEAD_BYTES = 1024 * 1024
_MOST_AHEAD_BYTES = 12 * 1024 * 1024
#: From one frame (of 32 KB, as a rule) to the next, in seconds, in between.
_SLOWLY_S = 0.2
#: How soon a stream that ended is opened anew, in seconds: at first, and when nothing came of it.
_REOPEN_S, _MOST_REOPEN_S = 0.5, 30.0

#: Opens the output of a container from now on; returns None where it does not run.
Reopen = Callable[[], Awaitable[Attached | None]]


class Output:
    """Moves output to a sink, in order."""

    def __init__(self, attached: Attached, sink: Sink, reopen: Reopen) -> None:
        self._attached = attached
        self._reopen = reopen
        self._reopen_s = _REOPEN_S
        self._has_ended = asyncio.Event()
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
        self._has_ended.set()
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
            await self._read_stream()
            while await self._has_reopened():
                await self._read_stream(_GAP)
        finally:
            self._ahead.put_nowait(None)

    async def _read_stream(self, first: Message | None = None) -> None:
        """Reads ahead until the stream ends; if there is anything, ``first`` comes before it."""
        while (message := await self._next()) is not None:
            if first is not None:
                self._put(first)
                first = None
            self._reopen_s = _REOPEN_S
            self._read_count += 1
            self._put(message)
            await self._room()

    def _put(self, message: Message) -> None:
        self._ahead_bytes += len(message.data)
        self._ahead.put_nowait(message)

    async def _has_reopened(self) -> bool:
        """Returns when the stream has been opened anew; False where the container has ended."""
        while not self._has_ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._reopen_s):
                    await self._has_ended.wait()
                    return False
            self._reopen_s = min(self._reopen_s * 2, _MOST_REOPEN_S)
            with contextlib.suppress(EngineError):  # whoever waits for the container sees to that
                attached = await self._reopen()
                if attached is not None:
                    await self._attached.close()
                    self._attached = attached
                    return True
        return False

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
