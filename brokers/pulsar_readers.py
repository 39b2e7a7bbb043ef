"""Reading logs by position: readers of one topic, kept where they stand for the next read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pulsar

from brokers.base import Edge, Entry, Position
from brokers.errors import PositionTrimmedError
from brokers.pulsar_admin import Place
from brokers.pulsar_link import Link, Pump, good_bye, message_of

#: Idle readers that are kept; a queen reads two logs per shard.
_KEPT: Final = 64
#: Messages that a reader fetches ahead.
_AHEAD: Final = 64
#: Longest wait for messages that the server says are there, in seconds.
_CATCH_UP_S: Final = 5.0


class Reader:
    """A reader of one topic that knows where it stands."""

    def __init__(self, topic: str, reader: Any, place: Place | None) -> None:
        self.topic = topic
        #: The place of the message it stands behind; None for the very beginning.
        self.place = place
        self._reader = reader
        self._pump = Pump(reader.read_next, _AHEAD)

    async def take(self, max_count: int, wait_s: float) -> list[Entry]:
        """Returns entries; none only if there were none at the end of the wait."""
        received = await self._arrived(max_count, wait_s)
        if not received and await asyncio.wait_for(self._reader.has_message_available(), _CATCH_UP_S):
            received = await self._arrived(max_count, _CATCH_UP_S)
        entries = [Entry(position_of(place_of(item)), message_of(self.topic, item)) for item in received]
        if entries:
            self.place = place_of(received[-1])
        return entries

    async def _arrived(self, max_count: int, wait_s: float) -> list[Any]:
        await asyncio.wait({self._pump.waiting()}, timeout=wait_s)
        return self._pump.take(max_count)

    async def stop(self) -> None:
        """Disconnects."""
        self._pump.stop()
        await good_bye(self._reader.close())


class Readers:
    """The idle readers of a broker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._idle: list[Reader] = []

    async def place(self, topic: str, after: Position | Edge) -> Place | None:
        """Returns the place that a position names; None for the very beginning.

        Raises:
            PositionTrimmedError: the log does not reach back to it, or never reached it.
        """
        await self._link.ensure([topic])
        admin = self._link.admin
        if after is Edge.END:
            return await admin.last_place(topic)
        reached = await admin.trimmed_up_to(topic)
        if after is Edge.START:
            return reached
        place = parse_position(topic, after)
        last = max(filter(None, (reached, await admin.last_place(topic))), default=None)
        if (reached is not None and place < reached) or (last is not None and place > last):
            raise PositionTrimmedError(topic)
        return place

    def stands_at(self, topic: str, after: Position | Edge) -> bool:
        """Says whether an idle reader makes every look at the server needless."""
        return any(_stands_at(reader, topic, after) for reader in self._idle)

    @asynccontextmanager
    async def borrow(self, topic: str, place: Place | None) -> AsyncIterator[Reader]:
        """Lends a reader behind a place; one that failed or was cancelled is not kept."""
        reader = next((item for item in self._idle if item.topic == topic and item.place == place), None)
        if reader is None:
            reader = Reader(topic, await self.make(topic, place), place)
        else:
            self._idle.remove(reader)
        try:
            yield reader
        except asyncio.CancelledError:
            self._idle.append(reader)  # it took nothing: what arrived is still in its pump
            raise
        except BaseException:
            await reader.stop()
            raise
        self._idle.append(reader)
        if len(self._idle) > _KEPT:
            await self._idle.pop(0).stop()

    async def make(self, topic: str, place: Place | None) -> Any:
        """Returns a new reader of the driver behind a place."""
        if place is None or place[1] < 0:
            start = pulsar.MessageId.wrap(pulsar.MessageId.earliest)
        else:
            start = pulsar.MessageId(-1, *place, -1)
        return await self._link.client.create_reader(self._link.name(topic), start, receiver_queue_size=_AHEAD)

    async def forget(self, topic: str) -> None:
        """Stops the readers of a topic that is deleted."""
        gone = [reader for reader in self._idle if reader.topic == topic]
        self._idle = [reader for reader in self._idle if reader.topic != topic]
        for reader in gone:
            await reader.stop()

    async def close(self) -> None:
        """Stops all."""
        idle, self._idle = self._idle, []
        for reader in idle:
            await reader.stop()


def _stands_at(reader: Reader, topic: str, after: Position | Edge) -> bool:
    return reader.topic == topic and reader.place is not None and position_of(reader.place) == after


def place_of(received: Any) -> Place:
    """Returns the place of a message of the driver."""
    found = received.message_id()
    return found.ledger_id(), found.entry_id()


def position_of(place: Place) -> Position:
    """Returns the position behind a message."""
    return Position(f"{place[0]}:{place[1]}".encode())


def parse_position(topic: str, position: Position) -> Place:
    """Returns the place that a position names.

    Raises:
        PositionTrimmedError: it is a position of another broker.
    """
    ledger, _, entry = position.partition(b":")
    if not ledger.isdigit() or not entry.isdigit():
        raise PositionTrimmedError(topic)
    return int(ledger), int(entry)
