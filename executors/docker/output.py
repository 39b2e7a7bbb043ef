"""The output of a running container, on its way to the log."""

import asyncio

import aiohttp
from aiodocker.stream import Message
from aiodocker.stream import Stream as Attached

from executors.base import Sink, Stream
from executors.output import PIECE_BYTES

_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}
#: How long the engine may take for the next piece, or the end, of a container that has ended, in seconds.
_REST_S = 20.0


class Output:
    """Moves output to a sink, one piece at a time: while the sink is busy, the container waits to write."""

    def __init__(self, attached: Attached, sink: Sink) -> None:
        self._attached = attached
        self._sink = sink
        self._moved_count = 0
        self._is_asking = False
        #: Ends with the output, or where the engine is lost.
        self.moving = asyncio.create_task(self._move())

    async def rest(self) -> bool:
        """Returns when all has been moved; False where the engine holds back the rest. The container has ended."""
        while True:
            moved_count = self._moved_count
            await asyncio.wait({self.moving}, timeout=_REST_S)
            if self.moving.done():
                self.moving.result()
                return True
            if self._is_asking and self._moved_count == moved_count:
                self.moving.cancel()
                return False

    async def _move(self) -> None:
        try:
            while (message := await self._next()) is not None:
                data = message.data
                for at in range(0, len(data), PIECE_BYTES):
                    await self._sink.write(_STREAMS.get(message.stream, Stream.STDOUT), data[at : at + PIECE_BYTES])
                self._moved_count += 1
        finally:
            await self._attached.close()

    async def _next(self) -> Message | None:
        """Returns the next frame; None at the end, or where the engine was lost."""
        self._is_asking = True
        try:
            return await self._attached.read_out()
        except (aiohttp.ClientError, ConnectionError):
            return None
        finally:
            self._is_asking = False
