"""Reading logs by position: consumers without a group, each on one topic, kept where they stand for the next read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import errors as kafka

from brokers.base import Edge, Entry, Position
from brokers.errors import PositionTrimmedError
from brokers.kafka_link import Link, good_bye, message_of, partition

#: Idle readers that are kept; a queen reads two logs per shard.
_KEPT: Final = 64
#: Longest wait for messages that the server says are there, in milliseconds.
_CATCH_UP_MS: Final = 5000


class Reader:
    """A consumer of one topic that knows where it stands."""

    def __init__(self, link: Link, topic: str) -> None:
        self.topic = topic
        self._consumer: Any = link.consumer(None, auto_offset_reset="none", fetch_max_wait_ms=250)
        self._partition = partition(topic)
        #: The next offset, or None where it is not known.
        self.offset: int | None = None

    async def start(self) -> None:
        """Connects."""
        await self._consumer.start()
        self._consumer.assign([self._partition])

    async def stop(self) -> None:
        """Disconnects."""
        await good_bye(self._consumer.stop())

    async def place(self, after: Position | Edge) -> int:
        """Returns the offset behind a position.

        Raises:
            PositionTrimmedError: the log does not reach back to it, or never reached it.
        """
        if after is Edge.END:
            return await self.end()
        if not isinstance(after, Edge) and self.offset is not None and offset_of(self.topic, after) == self.offset:
            return self.offset
        begin = await self._edge(self._consumer.beginning_offsets)
        if after is Edge.START:
            return begin
        offset = offset_of(self.topic, after)
        if not begin <= offset <= await self.end():
            raise PositionTrimmedError(self.topic)
        return offset

    async def take(self, offset: int, max_count: int, wait_s: float) -> list[Entry]:
        """Returns entries from ``offset`` on; none only if there were none at the end of the wait."""
        if self.offset != offset:
            self._consumer.seek(self._partition, offset)
        self.offset = None  # unknown while the call is under way
        records = await self._get(max(1, int(wait_s * 1000)), max_count)
        if not records and await self.end() > offset:
            records = await self._get(_CATCH_UP_MS, max_count)
        self.offset = records[-1].offset + 1 if records else offset
        return [Entry(position_of(record.offset + 1), message_of(record)) for record in records]

    async def end(self) -> int:
        """Returns the offset that the next message will have."""
        return await self._edge(self._consumer.end_offsets)

    async def _edge(self, ask: Any) -> int:
        return int((await ask([self._partition]))[self._partition])

    async def _get(self, wait_ms: int, max_count: int) -> list[Any]:
        try:
            found = await self._consumer.getmany(self._partition, timeout_ms=wait_ms, max_records=max_count)
        except kafka.OffsetOutOfRangeError:
            raise PositionTrimmedError(self.topic) from None
        return list(found.get(self._partition, ()))


class Readers:
    """The idle readers of a broker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._idle: list[Reader] = []

    @asynccontextmanager
    async def borrow(self, topic: str, after: Position | Edge) -> AsyncIterator[Reader]:
        """Lends a reader of a topic, where there is one one that stands at ``after``; a failed one is not kept."""
        reader = self._pick(topic, after)
        if reader is None:
            await self._link.ensure([topic])
            reader = Reader(self._link, topic)
        try:
            if reader.offset is None:
                await reader.start()
            yield reader
        except BaseException:
            await reader.stop()
            raise
        self._idle.append(reader)
        if len(self._idle) > _KEPT:
            await self._idle.pop(0).stop()

    async def close(self) -> None:
        """Stops all."""
        idle, self._idle = self._idle, []
        for reader in idle:
            await reader.stop()

    def _pick(self, topic: str, after: Position | Edge) -> Reader | None:
        found = [reader for reader in self._idle if reader.topic == topic]
        if not found:
            return None
        best = next((reader for reader in found if _stands_at(reader, after)), found[0])
        self._idle.remove(best)
        return best


def _stands_at(reader: Reader, after: Position | Edge) -> bool:
    return not isinstance(after, Edge) and reader.offset is not None and position_of(reader.offset) == after


def position_of(offset: int) -> Position:
    """Returns the position before ``offset``."""
    return Position(str(offset).encode())


def offset_of(topic: str, position: Position) -> int:
    """Returns the offset behind a position.

    Raises:
        PositionTrimmedError: it is a position of another broker.
    """
    if not position.isdigit():
        raise PositionTrimmedError(topic)
    return int(position)
