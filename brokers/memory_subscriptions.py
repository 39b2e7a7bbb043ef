"""Consumers of the memory broker: members of a group, and listeners."""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from brokers.appetite import MOUTHFUL_BYTES
from brokers.base import DEAD_SUFFIX, MAX_REJECTIONS, REASON_HEADER, Delivery, Message, Subscription
from brokers.errors import BrokerClosedError
from brokers.memory_server import MemoryServer
from brokers.memory_topics import Group, Topic

log = structlog.get_logger(__name__)

#: Messages that wait for one listener before it loses the oldest.
BROADCAST_BACKLOG: Final = 10_000


class MemorySubscription(Subscription):
    """What both kinds share: waiting and closing."""

    def __init__(self, server: MemoryServer, siblings: "set[MemorySubscription]", topics: Sequence[str]) -> None:
        self._server = server
        self._siblings = siblings
        self._topics = tuple(topics)
        self._is_closed = False

    @abstractmethod
    def _take(self, max_count: int) -> list[Delivery]: ...

    def _next_due_s(self) -> float | None:
        return None

    async def receive(self, max_count: int, timeout_s: float) -> list[Delivery]:
        """Waits for deliveries; takes them in one step, so that cancelling loses nothing."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self._check_open()
            deliveries = self._take(max_count)
            left_s = deadline - loop.time()
            if deliveries or left_s <= 0:
                return deliveries
            due_s = self._next_due_s()
            await self._server.wait(self._topics, left_s if due_s is None else min(left_s, due_s))

    async def close(self) -> None:
        """Leaves, and wakes whoever takes over."""
        if not self._is_closed:
            self._is_closed = True
            self._siblings.discard(self)
            self._leave()
            for name in self._topics:
                self._server.wake(name)

    @abstractmethod
    def _leave(self) -> None: ...

    def _check_open(self) -> None:
        if self._is_closed:
            raise BrokerClosedError("subscription")


class _Token:
    __slots__ = ("group", "offset", "serial", "topic")

    def __init__(self, topic: Topic, group: Group, offset: int, serial: int) -> None:
        self.topic = topic
        self.group = group
        self.offset = offset
        self.serial = serial

    def is_held(self) -> bool:
        return self.group.held.get(self.offset) == self.serial


class Member(MemorySubscription):
    """A consumer of a group."""

    def __init__(
        self, server: MemoryServer, siblings: set[MemorySubscription], topics: Sequence[str], group: str
    ) -> None:
        super().__init__(server, siblings, topics)
        self._group = group
        self._tokens: dict[int, _Token] = {}
        for name in topics:
            server.topic(name).group(group)

    def _take(self, max_count: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        deliveries: list[Delivery] = []
        room_bytes = MOUTHFUL_BYTES
        for name in self._topics:
            topic = self._server.topic(name)
            group = topic.group(self._group)
            while len(deliveries) < max_count and room_bytes > 0:
                if (offset := group.next_offset(topic.end, now)) is None:
                    break
                deliveries.append(self._hand_out(topic, group, offset))
                room_bytes -= len(deliveries[-1].message.body)
        return deliveries

    def _hand_out(self, topic: Topic, group: Group, offset: int) -> Delivery:
        token = _Token(topic, group, offset, self._server.next_serial())
        group.held[offset] = token.serial
        self._tokens[token.serial] = token
        return Delivery(topic.message(offset), str(offset), group.rejections.get(offset, 0), token)

    def _next_due_s(self) -> float | None:
        groups = [self._server.topic(name).group(self._group) for name in self._topics]
        dues = [group.delayed[0][0] for group in groups if group.delayed]
        return max(0.0, min(dues) - asyncio.get_running_loop().time()) if dues else None

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks deliveries as done, also those that went to another consumer meanwhile."""
        self._check_open()
        for delivery in deliveries:
            token: _Token = delivery.token
            token.group.finish(token.offset)
            self._tokens.pop(token.serial, None)
        self._let_go(deliveries)

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Rejects deliveries that are still this consumer's."""
        self._check_open()
        due = asyncio.get_running_loop().time() + delay_s
        for delivery in deliveries:
            token: _Token = delivery.token
            self._tokens.pop(token.serial, None)
            if token.is_held():
                self._reject(token, due, reason)
        self._let_go(deliveries)

    def _reject(self, token: _Token, due: float, reason: str) -> None:
        group, offset = token.group, token.offset
        rejections = group.rejections.get(offset, 0) + 1
        if rejections < MAX_REJECTIONS:
            group.rejections[offset] = rejections
            group.delay(offset, due)
            return
        message = token.topic.message(offset)
        headers = {**message.headers, REASON_HEADER: reason}
        self._server.append([message._replace(topic=message.topic + DEAD_SUFFIX, headers=headers)])
        group.finish(offset)

    def _let_go(self, deliveries: Sequence[Delivery]) -> None:
        for topic in {delivery.token.topic for delivery in deliveries}:
            topic.drop_acknowledged()
            self._server.wake(topic.name)

    def _leave(self) -> None:
        for token in self._tokens.values():
            if token.is_held():
                token.group.give_back(token.offset)
        self._tokens.clear()


class Broadcast(MemorySubscription):
    """A listener: a queue of its own, from now on."""

    def __init__(self, server: MemoryServer, siblings: set[MemorySubscription], topics: Sequence[str]) -> None:
        super().__init__(server, siblings, topics)
        self._queue: deque[Message] = deque()
        for name in topics:
            server.listen(name, self)

    def push(self, message: Message) -> None:
        """Adds a message, for the oldest where the listener is too far behind."""
        if len(self._queue) >= BROADCAST_BACKLOG:
            self._queue.popleft()
            log.warning("broadcast_dropped", topic=message.topic, backlog=BROADCAST_BACKLOG)
        self._queue.append(message)

    def _take(self, max_count: int) -> list[Delivery]:
        count = min(max_count, len(self._queue))
        return [Delivery(self._queue.popleft(), str(self._server.next_serial())) for _ in range(count)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()

    def _leave(self) -> None:
        for name in self._topics:
            self._server.forget(name, self)
        self._queue.clear()
