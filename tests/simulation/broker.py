"""A broker double: logs and broadcasts on a pretended server, reached over roads that fail.

It keeps the contract of ``brokers.base`` that the colony relies on: logs lose nothing and keep their order, ``publish``
returns only when the server has the batch, broadcasts may be missed. A publish that is given up may arrive later.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from brokers.base import Broker, Capabilities, Delivery, Edge, Entry, Message, Position, Subscription
from brokers.errors import BrokerUnavailableError, PositionTrimmedError
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Road, Weather

_LIMIT_BYTES: Final = 4 * 1024 * 1024

Appended = Callable[[Message], None]


class _Reader(NamedTuple):
    answer: Callable[[], None]


class _Log:
    def __init__(self) -> None:
        self.base = 0
        self.messages: list[Message] = []
        self.readers: dict[int, _Reader] = {}

    @property
    def end(self) -> int:
        return self.base + len(self.messages)

    def after(self, topic: str, offset: int, max_count: int) -> list[Entry]:
        if offset < self.base:
            raise PositionTrimmedError(topic)
        start = offset - self.base
        found = self.messages[start : start + max_count]
        return [Entry(position_at(offset + index), message) for index, message in enumerate(found, 1)]


def position_at(offset: int) -> Position:
    """Returns the position behind ``offset`` messages."""
    return Position(b"%d" % offset)


class LogServer:
    """The server's state. ``watch`` is told of every message that arrives."""

    def __init__(self, loop: VirtualLoop, weather: Weather, watch: Appended) -> None:
        self.loop = loop
        self.weather = weather
        self._watch = watch
        self._logs: dict[str, _Log] = {}
        self._listeners: dict[str, list[SimBroadcast]] = {}
        self._serial = 0

    def log(self, topic: str) -> _Log:
        """Returns a log, made where there is none."""
        found = self._logs.get(topic)
        if found is None:
            found = self._logs[topic] = _Log()
        return found

    def append(self, messages: Sequence[Message]) -> None:
        """Adds messages, in order, and wakes who waits for them."""
        for message in messages:
            self._watch(message)
            listeners = self._listeners.get(message.topic)
            if listeners is not None:
                for listener in listeners:
                    listener.carry(message)
                continue
            self.log(message.topic).messages.append(message)
        for topic in dict.fromkeys(message.topic for message in messages):
            self._wake(topic)

    def _wake(self, topic: str) -> None:
        log = self._logs.get(topic)
        if log is not None:
            readers, log.readers = log.readers, {}
            for reader in readers.values():
                reader.answer()

    def wait(self, topic: str, timeout_s: float, answer: Callable[[], None]) -> None:
        """Calls ``answer`` when the log grows or the time is up."""
        log = self.log(topic)
        self._serial += 1
        serial = self._serial

        def expire() -> None:
            if log.readers.pop(serial, None) is not None:
                answer()

        timer = self.loop.world_later(timeout_s, expire)

        def wake() -> None:
            timer.cancel()
            answer()

        log.readers[serial] = _Reader(wake)

    def trim(self, topic: str, before: int) -> None:
        """Drops the beginning of a log."""
        log = self.log(topic)
        count = min(before, log.end) - log.base
        if count > 0:
            del log.messages[:count]
            log.base += count

    def listen(self, topics: Sequence[str], listener: "SimBroadcast") -> None:
        """Adds a listener."""
        for topic in topics:
            self._listeners.setdefault(topic, []).append(listener)

    def forget(self, listener: "SimBroadcast") -> None:
        """Removes a listener; the topics stay broadcasts."""
        for listeners in self._listeners.values():
            if listener in listeners:
                listeners.remove(listener)


class SimBroker(Broker):
    """One machine's connection."""

    def __init__(self, server: LogServer, road: Road, *, topics_are_dear: bool) -> None:
        self.capabilities = Capabilities(
            survives_process=True, topics_are_dear=topics_are_dear, max_message_bytes=_LIMIT_BYTES
        )
        self._server = server
        self._road = road

    def _lost(self) -> BrokerUnavailableError:
        return BrokerUnavailableError("sim://", "no answer")

    async def open(self) -> None:
        """Needs nothing."""

    async def close(self) -> None:
        """Needs nothing."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Sends a batch and waits for the server's word."""
        await self._road.request(lambda: self._server.append(messages), self._lost)

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Listens from the moment that the server knows of it."""
        assert group is None, "no part under simulation reads as a group"
        subscription = SimBroadcast(self._server, self._road)
        await self._road.request(lambda: self._server.listen(topics, subscription), self._lost)
        return subscription

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Reads a log; waits at the server for the first entry."""

        def arrive(answer: Callable[[Callable[[], list[Entry]]], None]) -> None:
            log = self._server.log(topic)
            start = _offset(log, after)
            if log.end > start or start < log.base:
                answer(lambda: log.after(topic, start, max_count))
            else:
                self._server.wait(topic, timeout_s, lambda: answer(lambda: log.after(topic, start, max_count)))

        return await self._road.ask(arrive, self._lost)

    async def end(self, topic: str) -> Position | Edge:
        """Returns the present end."""
        return await self._road.request(lambda: position_at(self._server.log(topic).end), self._lost)

    async def trim(self, topic: str, before: Position) -> None:
        """Drops the beginning of a log, without a delay: it is said often and matters little."""
        if self._road.is_cut_there or self._road.is_cut_back:
            raise self._lost()
        self._server.trim(topic, int(before))

    async def depth(self, topic: str, group: str) -> int:
        """Returns 0: nothing under simulation has a group."""
        return 0

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes logs."""
        for topic in topics:
            self._server.log(topic)

    async def topics(self, prefix: str) -> list[str]:
        """Returns nothing: no queen of the simulation looks for topics."""
        del prefix
        return []

    async def delete_topic(self, topic: str) -> None:
        """Drops what a log holds."""
        self._server.trim(topic, self._server.log(topic).end)


def _offset(log: _Log, after: Position | Edge) -> int:
    if after is Edge.START:
        return log.base
    return log.end if after is Edge.END else int(after)


class SimBroadcast(Subscription):
    """A listener: what arrives waits here, as in a socket's buffer, also while its process is frozen."""

    def __init__(self, server: LogServer, road: Road) -> None:
        self._server = server
        self._road = road
        self._queue: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._free_at = 0.0

    def carry(self, message: Message) -> None:
        """Sends a message on its way to the listener, behind those before it."""
        weather, loop = self._server.weather, self._server.loop
        if not self._road.hears():
            return
        for _ in range(1 + weather.happens(weather.twice)):
            self._free_at = max(self._free_at, loop.now + weather.delay_s())
            loop.world_later(self._free_at - loop.now, self._push, message)

    def _push(self, message: Message) -> None:
        self._queue.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self, max_count: int, timeout_s: float) -> list[Delivery]:
        """Waits for messages."""
        if self._road.is_over:
            raise asyncio.CancelledError
        if not self._queue:
            loop = self._server.loop
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _resolve, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        count = min(max_count, len(self._queue))
        return [Delivery(self._queue.popleft(), "") for _ in range(count)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Has no effect on a broadcast."""

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Has no effect on a broadcast."""

    async def close(self) -> None:
        """Stops listening."""
        self._server.forget(self)


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
