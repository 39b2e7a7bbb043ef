"""Printing is bounded: a function that is faster than its sink waits."""

import asyncio
import threading

from executors.base import Stream
from executors.capture import Capture
from executors.output import PIECE_BYTES
from executors.testing import CollectingSink


class ClosedSink(CollectingSink):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        await self.opened.wait()
        await super().write(stream, data)


class Printing:
    """A thread that prints pieces and counts those it got rid of."""

    def __init__(self, capture: Capture, pieces: int) -> None:
        self.done_count = 0
        self._capture = capture
        self._pieces = pieces
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for _ in range(self._pieces):
            self._capture.write(Stream.STDOUT, b"x" * PIECE_BYTES)
            self.done_count += 1

    async def ended(self) -> None:
        await asyncio.to_thread(self._thread.join, 5)
        assert not self._thread.is_alive()

    async def is_stuck(self) -> bool:
        await asyncio.to_thread(self._thread.join, 0.2)
        return self._thread.is_alive()


async def test_a_writer_waits_while_its_sink_takes_nothing_and_loses_nothing() -> None:
    sink = ClosedSink()
    capture = Capture(asyncio.get_running_loop(), sink)
    printing = Printing(capture, pieces=40)
    assert await printing.is_stuck()
    assert printing.done_count <= 5

    sink.opened.set()
    await printing.ended()
    await capture.drain()

    assert sink.sizes[Stream.STDOUT] == 40 * PIECE_BYTES


async def test_close_lets_a_writer_go() -> None:
    capture = Capture(asyncio.get_running_loop(), ClosedSink())
    printing = Printing(capture, pieces=40)
    assert await printing.is_stuck()

    capture.close()

    await printing.ended()


async def test_streams_keep_their_order_and_small_writes_are_joined() -> None:
    sink = CollectingSink()
    capture = Capture(asyncio.get_running_loop(), sink)

    for stream, data in [(Stream.STDOUT, b"a"), (Stream.STDOUT, b"b"), (Stream.STDERR, b"c"), (Stream.STDOUT, b"d")]:
        capture.write(stream, data)
    await capture.drain()

    assert sink.pieces == [(Stream.STDOUT, b"ab"), (Stream.STDERR, b"c"), (Stream.STDOUT, b"d")]
