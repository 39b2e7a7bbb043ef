"""The broker inside one process: ``memory://``, for a single-process colony and for tests.

What it keeps, and for how long:

- A log that is read by position keeps everything until it is trimmed; beyond ``limit_bytes`` it lets go of what its
  readers have put behind them.
- A topic with groups keeps what some group has yet to acknowledge.
- A topic that is only listened to (broadcast) keeps nothing; a listener that falls behind loses the oldest.
- A topic that nobody has asked for yet keeps its newest ``limit_bytes``.
- Where what must be kept exceeds ``limit_bytes``, ``publish`` waits for the readers: a slow consumer slows its
  producers down, and memory stays bounded.

Nothing outlives the process. Positions of an earlier process raise ``PositionTrimmedError``.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from brokers.base import Broker, Capabilities, Edge, Entry, Message, Position, Subscription
from brokers.errors import BrokerClosedError, MessageTooLargeError, PositionTrimmedError
from brokers.memory_server import MemoryServer, server_named
from brokers.memory_subscriptions import Broadcast, Member, MemorySubscription

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024


class MemoryBroker(Broker):
    """A connection to a ``MemoryServer``; for one event loop."""

    capabilities = Capabilities(survives_process=False, topics_are_dear=False, max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._is_open = False
        self._subscriptions: set[MemorySubscription] = set()

    async def open(self) -> None:
        """Makes the broker usable."""
        self._is_open = True

    async def close(self) -> None:
        """Closes subscriptions and ends pending reads."""
        self._is_open = False
        for subscription in list(self._subscriptions):
            await subscription.close()
        self._server.wake_all()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Appends the batch at once, without yielding unless a topic is full; then it waits for its readers."""
        self._check_open()
        for message in messages:
            if len(message.body) > MAX_MESSAGE_BYTES:
                raise MessageTooLargeError(message.topic, len(message.body), MAX_MESSAGE_BYTES)
        names = {message.topic for message in messages}
        is_waiting = False
        while (full := self._server.full_topic(names)) is not None:
            if not is_waiting:
                log.warning("publish_waits_for_readers", topic=full)
            is_waiting = True
            await self._server.wait([full], None)
            self._check_open()
        self._server.append(messages)

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Joins a group, or listens."""
        self._check_open()
        subscription: MemorySubscription
        if group is None:
            subscription = Broadcast(self._server, self._subscriptions, topics)
        else:
            subscription = Member(self._server, self._subscriptions, topics, group)
        self._subscriptions.add(subscription)
        return subscription

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Reads a log by position."""
        self._check_open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        start = self._server.topic(topic).after(after)
        self._server.relieve(topic)
        while True:
            entries = self._server.topic(topic).entries(start, max_count)
            left_s = deadline - loop.time()
            if entries or left_s <= 0:
                return entries
            await self._server.wait([topic], left_s)
            self._check_open()

    async def end(self, topic: str) -> Position | Edge:
        """Returns the present end of a log."""
        self._check_open()
        return self._server.topic(topic).end_position()

    async def trim(self, topic: str, before: Position) -> None:
        """Drops the beginning of a log."""
        self._check_open()
        if (found := self._server.find(topic)) is not None:
            with suppress(PositionTrimmedError):
                found.trim(before)
            self._server.wake(topic)

    async def depth(self, topic: str, group: str) -> int:
        """Returns what a group has yet to acknowledge; for a group that is not there, all that the topic holds."""
        self._check_open()
        found = self._server.find(topic)
        if found is None:
            return 0
        state = found.groups.get(group)
        return found.end - found.base if state is None else found.end - state.low - len(state.done)

    async def settle(self, topic: str, group: str) -> None:
        """Waits for the acknowledgements of a group: what it has is safe, and nothing else here is."""
        self._check_open()
        found = self._server.find(topic)
        state = found.groups.get(group) if found is not None else None
        if found is None or state is None:
            return
        end = found.end
        while state.low < end and self._server.find(topic) is found:
            await self._server.wait([topic], None)
            self._check_open()

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes topics."""
        self._check_open()
        for topic in topics:
            self._server.topic(topic)

    async def topics(self, prefix: str) -> list[str]:
        """Returns the topics of the server."""
        self._check_open()
        return self._server.names(prefix)

    async def delete_topic(self, topic: str) -> None:
        """Deletes a topic; its subscriptions go on with the next of its name."""
        self._check_open()
        self._server.delete(topic)

    def _check_open(self) -> None:
        if not self._is_open:
            raise BrokerClosedError("memory broker")


def from_url(url: str) -> MemoryBroker:
    """Returns a broker for ``memory://`` (private) or ``memory://<name>`` (shared within this process)."""
    return MemoryBroker(server_named(url.partition("://")[2].strip("/")))
