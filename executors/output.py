"""Moves the output of a process to a sink with at most one piece in memory."""

import asyncio
import os

from executors.base import Sink, Stream

#: The largest piece a sink gets, and the usual capacity of a pipe.
PIECE_BYTES = 64 * 1024
#: How long an empty pipe is listened to after everything known to write to it is gone.
_LAST_WORDS_S = 0.2


class OutputPump:
    """Reads a pipe and writes to the sink, one piece at a time: while the sink is busy the process waits to write."""

    def __init__(self, fd: int, stream: Stream, sink: Sink) -> None:
        self._fd = fd
        self._stream = stream
        self._sink = sink
        self._has_writers = True
        self._readable: asyncio.Future[bool] | None = None
        os.set_blocking(fd, False)

    async def run(self) -> None:
        """Returns at the end of the output. Closes the pipe."""
        try:
            while await self._move_piece():
                pass
        finally:
            os.close(self._fd)

    def finish(self) -> None:
        """Says that all known writers are gone: what is in the pipe still counts, but an empty pipe is not waited for.

        A process that nobody could find may hold the pipe open for ever.
        """
        self._has_writers = False
        if self._readable is not None:
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, _resolve, self._readable, False)

    async def _move_piece(self) -> bool:
        try:
            piece = os.read(self._fd, PIECE_BYTES)
        except BlockingIOError:
            return await self._is_more_coming()
        if not piece:
            return False
        await self._sink.write(self._stream, piece)
        if len(piece) == PIECE_BYTES:
            await asyncio.sleep(0)  # a sink that never waits must not starve the loop
        return True

    async def _is_more_coming(self) -> bool:
        loop = asyncio.get_running_loop()
        self._readable = loop.create_future()
        if not self._has_writers:
            loop.call_later(_LAST_WORDS_S, _resolve, self._readable, False)
        loop.add_reader(self._fd, _resolve, self._readable, True)
        try:
            return await self._readable
        finally:
            loop.remove_reader(self._fd)
            self._readable = None


def _resolve(future: "asyncio.Future[bool]", value: bool) -> None:
    if not future.done():
        future.set_result(value)
