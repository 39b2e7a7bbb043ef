"""Reading logs by position: one fetch request for one log at a time, which the server answers when a message is there.

The driver's consumer would fetch ahead, with tasks and a client of its own for each log: three more turns of the loop
on the way of every message. What it knows beside, groups and resets, has no part in reading by position.

Rules:

- The server answers the requests of one connection in their order, so each request under way has a connection to
  itself. One whose caller was cancelled gets its answer first, then serves another.
- These connections are made side by side. A client of the driver would make them one after the other, its own too,
  which after a loss of the server keeps everything waiting.
- What came beyond the wanted count is kept for the read that follows.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from brokers.base import Edge, Entry, Position
from brokers.errors import PositionTrimmedError
from brokers.kafka_link import LEADERLESS, REQUEST_TIMEOUT_S, Link, message_of

#: What one fetch brings, in bytes; a single message may have more.
_FETCH_BYTES: Final = 2 * 2**20
#: Longest wait of one fetch at the server, in seconds.
_WAIT_S: Final = REQUEST_TIMEOUT_S / 3
#: Logs for which more was fetched than was wanted; a queen reads two per shard.
_KEPT: Final = 64
#: What the server calls the edges of a log.
_EARLIEST, _LATEST = -2, -1


class Readers:
    """Reads the logs of one cluster."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connections: set[Any] = set()
        #: Those that no request is under way on, with host and port.
        self._idle: list[tuple[tuple[str, int], Any]] = []
        #: Log and offset -> the records from there on.
        self._ahead: OrderedDict[tuple[str, int], Sequence[Any]] = OrderedDict()

    async def close(self) -> None:
        """Disconnects; requests under way fail."""
        connections, self._connections = self._connections, set()
        self._idle.clear()
        for connection in connections:
            connection.close()

    def forget(self, topic: str) -> None:
        """Lets go of what was fetched of a topic that is deleted now."""
        for kept in [key for key in self._ahead if key[0] == topic]:
            del self._ahead[kept]

    async def place(self, topic: str, after: Position | Edge) -> int:
        """Returns the offset behind a position."""
        if after is Edge.START:
            return await self.begin(topic)
        return await self.end(topic) if isinstance(after, Edge) else offset_of(topic, after)

    async def begin(self, topic: str) -> int:
        """Returns the offset of the oldest message."""
        return await self._edge(topic, _EARLIEST)

    async def end(self, topic: str) -> int:
        """Returns the offset that the next message will have."""
        return await self._edge(topic, _LATEST)

    async def take(self, topic: str, offset: int, max_count: int, wait_s: float) -> tuple[int, list[Entry]]:
        """Returns entries from ``offset`` on, and the offset behind them; none if none came within one wait.

        Raises:
            PositionTrimmedError: the log does not reach back to the offset, or never reached it.
        """
        records = self._ahead.pop((topic, offset), None)
        if records is None:
            offset, records = await self._fetch(topic, offset, wait_s)
        if not records:
            return offset, []
        taken, left = records[:max_count], records[max_count:]
        offset = taken[-1].offset + 1
        if left:
            self._ahead[topic, offset] = left
            if len(self._ahead) > _KEPT:
                self._ahead.popitem(last=False)
        return offset, [Entry(position_of(record.offset + 1), message_of(topic, record)) for record in taken]

    async def _fetch(self, topic: str, offset: int, wait_s: float) -> tuple[int, Sequence[Any]]:
        wait_ms = int(min(wait_s, _WAIT_S) * 1000)
        where = [(topic, [(0, offset, _FETCH_BYTES)])]
        answer = asyncio.ensure_future(self._ask(topic, FetchRequest(wait_ms, 1, _FETCH_BYTES, 0, where)))
        answer.add_done_callback(_nobody_asks)
        *_, data = await asyncio.shield(answer)
        records: list[Any] = []
        batches = MemoryRecords(data)
        while batches.has_next():
            batch: Any = batches.next_batch()
            if not batch.validate_crc():
                raise kafka.CorruptRecordException(f"topic {topic}, offset {offset}")
            if not batch.is_control_batch:
                records.extend(record for record in batch if record.offset >= offset)
            offset = max(offset, batch.next_offset)
        return offset, records

    async def _edge(self, topic: str, edge: int) -> int:
        *_, offset = await self._ask(topic, OffsetRequest(-1, 0, [(topic, [(0, edge)])]))
        return int(offset)

    async def _ask(self, topic: str, request: Any) -> Any:
        """Returns what the leader of a log says of its partition."""
        answer = await self._answer(await self._link.leader(topic), request)
        ((_, (facts,)),) = answer.topics
        error = kafka.for_code(facts[1])
        if error is kafka.OffsetOutOfRangeError:
            raise PositionTrimmedError(topic)
        if error in LEADERLESS:
            self._link.forget_topics()
        if error is not kafka.NoError:
            raise error(topic)
        return facts

    async def _answer(self, server: tuple[str, int], request: Any) -> Any:
        connection = self._pick(server) or await self._connect(server)
        try:
            answer = await connection.send(request)
        except BaseException:
            self._connections.discard(connection)
            connection.close()
            raise
        self._idle.append((server, connection))
        return answer

    def _pick(self, server: tuple[str, int]) -> Any:
        while found := next((item for item in self._idle if item[0] == server), None):
            self._idle.remove(found)
            if found[1].connected():
                return found[1]
            self._connections.discard(found[1])
        return None

    async def _connect(self, server: tuple[str, int]) -> Any:
        try:
            connection = await self._link.connect(*server)
        except BaseException:
            self._link.forget_topics()  # another one may lead by now
            raise
        self._connections.add(connection)
        return connection


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


def _nobody_asks(answer: "asyncio.Future[Any]") -> None:
    """Takes note of a failure whose caller may be gone."""
    if not answer.cancelled():
        answer.exception()
