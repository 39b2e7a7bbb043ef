"""Output of attempts on its way to ``formicary.logs``.

``AttemptLog`` (one per attempt, cheap until output comes) masks and splits; ``LogShipper`` (one per ant) publishes what
has gathered, at most ``BATCH_S`` after it came. Writers wait while more than ``ROOM_BYTES`` is on its way, so a slow
broker slows the tasks down instead of filling the memory.
"""

import asyncio
from datetime import datetime
from typing import Any, Final

import structlog

from brokers.errors import MessageTooLargeError
from executors.base import Stream
from formicary.ant import outputs
from formicary.ant.assignments import Key
from formicary.ant.lines import MAX_LINE_BYTES, LineSplitter, Piece
from formicary.ant.masking import Masker, mask_text, secret_bytes
from formicary.ant.values import clean_text
from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.errors import DataError
from formicary.events import topics
from formicary.events.logs import Line, LogChunk
from formicary.service import Service

log = structlog.get_logger(__name__)

Json = Any  # a JSON value

#: Output waits at most this long for more of it, in seconds.
BATCH_S: Final = 0.1
#: What may be on its way to the broker.
ROOM_BYTES: Final = 4 * 1024 * 1024
#: One chunk's text; below the limit of a pack, so that chunks of several attempts share one.
CHUNK_BYTES: Final = 128 * 1024
_LINE_OVERHEAD_BYTES: Final = 64


class LogShipper(Service):
    """Publishes the lines of all attempts of an ant, in order per attempt."""

    def __init__(self, bus: Bus, clock: Clock, limit_bytes: int) -> None:
        super().__init__()
        self._bus = bus
        self.clock = clock
        self.limit_bytes = limit_bytes
        self._lines: dict[Key, list[Line]] = {}
        self._bytes = 0
        self._has_lines = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._flushed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Publishes what gathers until cancelled."""
        self.started.set()
        while True:
            await self._has_lines.wait()
            await self._gather()
            await self._ship_once()

    async def put(self, key: Key, lines: list[Line]) -> None:
        """Takes lines; returns when there is room for more."""
        self._lines.setdefault(key, []).extend(lines)
        self._bytes += sum(len(line.text) + _LINE_OVERHEAD_BYTES for line in lines)
        self._has_lines.set()
        if self._bytes >= ROOM_BYTES:
            self._has_room.clear()
            self._is_urgent.set()
            await self._has_room.wait()

    async def flush(self) -> None:
        """Returns when everything put so far outlives this process; never, if that fails."""
        if self._flushed is None:
            self._flushed = asyncio.get_running_loop().create_future()
        self._is_urgent.set()
        self._has_lines.set()
        await asyncio.shield(self._flushed)
        await self._bus.settle(topics.LOGS, topics.LOG_WRITERS)

    async def _gather(self) -> None:
        if not self._is_urgent.is_set():
            try:
                async with asyncio.timeout(BATCH_S):
                    await self._is_urgent.wait()
            except TimeoutError:
                return

    async def _ship_once(self) -> None:
        lines, self._lines = self._lines, {}
        taken, flushed, self._flushed = self._bytes, self._flushed, None
        self._has_lines.clear()
        self._is_urgent.clear()
        await self._publish(_chunks(lines))
        if flushed is not None and not flushed.done():
            flushed.set_result(None)
        self._bytes -= taken
        self._has_room.set()

    async def _publish(self, batch: list[Outgoing]) -> None:
        try:
            await self._bus.publish(batch)
        except (DataError, MessageTooLargeError) as exc:
            if len(batch) == 1:
                await self._publish_parts(batch[0], exc)
                return
            for chunk in batch:  # those of other attempts are not at fault
                await self._publish([chunk])

    async def _publish_parts(self, chunk: Outgoing, cause: Exception) -> None:
        """Publishes what can be of a chunk that cannot; of the rest the log itself says that it is missing."""
        event = chunk.event
        assert isinstance(event, LogChunk)
        if len(event.lines) > 1:
            for half in event.halves():
                await self._publish([chunk._replace(event=half)])
            return
        log.error("log_line_not_published", error=str(cause), key=chunk.key)
        try:
            await self._bus.publish([chunk._replace(event=event.dropped(str(cause)))])
        except (DataError, MessageTooLargeError) as exc:
            log.error("log_notice_not_published", error=str(exc), key=chunk.key)


def _chunks(lines: dict[Key, list[Line]]) -> list[Outgoing]:
    """Returns the lines as chunks; order is kept within an attempt."""
    batch: list[Outgoing] = []
    for key, attempt_lines in lines.items():
        start = size = 0
        for index, line in enumerate(attempt_lines):
            size += len(line.text) * 2 + _LINE_OVERHEAD_BYTES
            if size >= CHUNK_BYTES:
                batch.append(_chunk(key, attempt_lines[start : index + 1]))
                start, size = index + 1, 0
        if start < len(attempt_lines):
            batch.append(_chunk(key, attempt_lines[start:]))
    return batch


def _chunk(key: Key, lines: list[Line]) -> Outgoing:
    job_id, task_no, attempt = key
    event = LogChunk(job_id=job_id, task_no=task_no, attempt=attempt, lines=tuple(lines))
    return Outgoing(topics.LOGS, f"{job_id}/{task_no}/{attempt}", event)


class _StreamState:
    """One of the attempt's streams."""

    __slots__ = ("masker", "splitter")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self.masker = Masker(secrets)
        self.splitter = LineSplitter()


class AttemptLog:
    """The sink of one attempt (``executors.base.Sink``). Takes ``::set-output`` lines out of stdout."""

    __slots__ = ("_bytes", "_is_full", "_key", "_secrets", "_seq", "_shipper", "_streams", "error", "outputs")

    def __init__(self, shipper: LogShipper, key: Key, secrets: tuple[str, ...]) -> None:
        self._shipper = shipper
        self._key = key
        self._secrets = secrets
        self._streams: dict[str, _StreamState] | None = None
        self._seq = 0
        self._bytes = 0
        self._is_full = False
        #: What ``::set-output`` lines said, and the first of them that was wrong.
        self.outputs: dict[str, Json] | None = None
        self.error: DataError | None = None

    async def write(self, stream: Stream, data: bytes) -> None:
        """Takes a piece of output; returns when there is room for the next."""
        state = self._state(stream)
        masked = state.masker.feed(data.replace(b"\0", b""))
        if masked:
            await self._put(stream, state.splitter.feed(masked))

    async def note(self, text: str) -> None:
        """Adds a line of the ant's own, which may quote names of files and the like."""
        await self._put(Stream.SYSTEM, [Piece(self.told(text))])

    def told(self, text: str) -> str:
        """Returns a text of the ant's own as people may see it: masked, and without what no database takes."""
        return mask_text(clean_text(text), self._secrets)

    async def finish(self) -> None:
        """Ends the streams: ``outputs`` and ``error`` are final then. Safe twice."""
        streams, self._streams = self._streams or {}, None
        for name, state in streams.items():
            rest = state.masker.finish()
            lines = state.splitter.feed(rest) if rest else []
            await self._put(Stream(name), lines + state.splitter.finish())

    async def close(self) -> None:
        """Returns when the broker has all lines. Costs nothing where there was no output."""
        await self.finish()
        if self._seq:
            await self._shipper.flush()

    def _state(self, stream: Stream) -> _StreamState:
        if self._streams is None:
            self._streams = {}
        state = self._streams.get(stream)
        if state is None:
            state = self._streams[stream] = _StreamState(secret_bytes(self._secrets))
        return state

    async def _put(self, stream: Stream, pieces: list[Piece]) -> None:
        if stream == Stream.STDOUT:
            pieces = [piece for piece in pieces if not self._took_output(piece)]
        if not pieces or self._is_full:
            return
        now = self._shipper.clock.now()
        lines: list[Line] = []
        for piece in pieces:
            lines.append(self._line(stream, now, piece.text))
            self._bytes += len(piece.text) + 1
            if self._bytes > self._shipper.limit_bytes:
                self._is_full = True
                notice = f"log limit of {self._shipper.limit_bytes} bytes reached; what follows is not kept"
                lines.append(self._line(Stream.SYSTEM, now, notice))
                break
        await self._shipper.put(self._key, lines)

    def _line(self, stream: Stream, at: datetime, text: str) -> Line:
        self._seq += 1
        return Line(self._seq, stream.value, at, text)

    def _took_output(self, piece: Piece) -> bool:
        if piece.is_continuation or not piece.text.startswith(outputs.PREFIX):
            return False
        try:
            name, value = outputs.parse_line(piece.text)
            if piece.is_cut:
                message = f"a ::set-output line has at most {MAX_LINE_BYTES} bytes; use the file $FORMICARY_OUTPUT"
                raise DataError(f"outputs.{name}", message)
        except DataError as exc:
            self.error = self.error or exc
            return True
        if self.outputs is None:
            self.outputs = {}
        self.outputs[name] = value
        return True
