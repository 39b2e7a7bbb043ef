"""What functions print goes to the sink of their task, not to the ant's own output.

``sys.stdout`` and ``sys.stderr`` are replaced once by proxies that look at a context variable: inside a task they write
to its capture, elsewhere to the stream that was there before. Context variables follow ``asyncio`` tasks and
``asyncio.to_thread``.

Memory is bounded: a function that prints faster than its sink takes waits in ``write``. For asynchronous functions this
halts the loop they share, which is the price for losing nothing.
"""

import asyncio
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, TextIO, cast

from executors.base import Sink, Stream
from executors.output import PIECE_BYTES

#: How much of a task's output may wait for its sink.
_LIMIT_BYTES = 4 * PIECE_BYTES


class Printer(Protocol):
    """Takes what the current task prints."""

    def print_bytes(self, stream: Stream, data: bytes) -> bool:
        """Takes the output; False where the task is over and it belongs to nobody."""
        ...


#: The task whose function runs here.
CURRENT: ContextVar[Printer | None] = ContextVar("formicary_task", default=None)


class Capture:
    """The output of one task on its way from any thread to a sink in the ant's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink) -> None:
        self._loop = loop
        self._sink = sink
        self._pieces: deque[tuple[Stream, bytes]] = deque()
        self._waiting_bytes = 0
        self._has_room = threading.Condition()
        self._is_moving = False
        self._is_closed = False
        self._mover: asyncio.Task[None] | None = None

    def write(self, stream: Stream, data: bytes) -> None:
        """Takes output in any thread; waits while too much of it is on its way."""
        for start in range(0, len(data), PIECE_BYTES):
            self._write_piece(stream, data[start : start + PIECE_BYTES])

    def close(self) -> None:
        """Lets go of writers that wait; what they write from now on is dropped."""
        with self._has_room:
            self._is_closed = True
            self._has_room.notify_all()

    async def drain(self) -> None:
        """Returns when all output has gone to the sink. Call in the ant's loop, after the last write."""
        while self._mover is not None and not self._mover.done():
            await asyncio.wait([self._mover])
        await self._move()
        if self._mover is not None:
            self._mover.result()

    def _write_piece(self, stream: Stream, piece: bytes) -> None:
        with self._has_room:
            self._has_room.wait_for(lambda: self._is_closed or self._waiting_bytes < _LIMIT_BYTES)
            if self._is_closed:
                return
            self._append(stream, piece)
            if self._is_moving:
                return
            self._is_moving = True
        with contextlib.suppress(RuntimeError):  # the ant's loop is closed: nobody reads this any more
            self._loop.call_soon_threadsafe(self._start_moving)

    def _append(self, stream: Stream, piece: bytes) -> None:
        self._waiting_bytes += len(piece)
        if self._pieces and self._pieces[-1][0] is stream and len(self._pieces[-1][1]) + len(piece) <= PIECE_BYTES:
            piece = self._pieces.pop()[1] + piece
        self._pieces.append((stream, piece))

    def _start_moving(self) -> None:
        if self._mover is None or self._mover.done():
            self._mover = asyncio.create_task(self._move())

    async def _move(self) -> None:
        try:
            while (taken := self._take()) is not None:
                await self._sink.write(*taken)
        except BaseException:
            self.close()
            raise

    def _take(self) -> tuple[Stream, bytes] | None:
        with self._has_room:
            if not self._pieces:
                self._is_moving = False
                return None
            taken = self._pieces.popleft()
            self._waiting_bytes -= len(taken[1])
            self._has_room.notify_all()
            return taken


class _Buffer:
    """The binary side of a proxy, for ``sys.stdout.buffer.write``."""

    def __init__(self, write: Callable[[bytes], int], original: TextIO) -> None:
        self.write = write
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original.buffer, name)


class _OutputProxy:
    """Stands in for ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, original: TextIO, stream: Stream) -> None:
        self.original = original
        self._stream = stream
        self.buffer = _Buffer(self._write_bytes, original)

    def write(self, text: str) -> int:
        printer = CURRENT.get()
        if printer is not None and printer.print_bytes(self._stream, text.encode(errors="backslashreplace")):
            return len(text)
        return self.original.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def _write_bytes(self, data: bytes) -> int:
        printer = CURRENT.get()
        if printer is not None and printer.print_bytes(self._stream, bytes(data)):
            return len(data)
        return self.original.buffer.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


def install() -> None:
    """Puts the proxies in place, unless they are. Safe at any time."""
    if not isinstance(sys.stdout, _OutputProxy):
        sys.stdout = cast(TextIO, _OutputProxy(sys.stdout, Stream.STDOUT))
    if not isinstance(sys.stderr, _OutputProxy):
        sys.stderr = cast(TextIO, _OutputProxy(sys.stderr, Stream.STDERR))


def uninstall() -> None:
    """Puts the former streams back, where nobody else has replaced the proxies since."""
    if isinstance(sys.stdout, _OutputProxy):
        sys.stdout = sys.stdout.original
    if isinstance(sys.stderr, _OutputProxy):
        sys.stderr = sys.stderr.original
