"""Members of groups on servers that know no delayed rejection: what is held, and when it comes back, is kept here."""

import asyncio
import heapq
import itertools
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from brokers.base import MAX_REJECTIONS, Delivery, Message
from brokers.pulling import PullingSubscription


class Token(NamedTuple):
    """What a delivery of such a member carries: its message's place, and which of its deliveries it is."""

    topic: str
    #: The place in its topic, in the form of the backend.
    entry: Any
    serial: int


class HoldingSubscription(PullingSubscription):
    """Keeps account of what the server believes this member works on.

    A rejected message stays this member's on the server and is handed out again by it when the delay is over; the
    server has it back when the member closes or dies.
    """

    def __init__(self) -> None:
        super().__init__()
        self._serials = itertools.count(1)
        #: (topic, entry) -> serial of its newest delivery.
        self._owned: dict[tuple[str, Hashable], int] = {}
        self._delayed: list[tuple[float, int, Delivery]] = []

    @abstractmethod
    async def _finish(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges; safe to repeat."""

    @abstractmethod
    async def _reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        """Notes one more rejection of each than it carries, or moves it to the dead letters; safe to repeat."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges by the message's place, whoever holds it; repeats until the server took it."""
        self._check_open()
        if deliveries:
            await self._insist(lambda: self._finish(deliveries))
        for delivery in deliveries:
            self._disown(delivery)

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Counts a rejection of each delivery that is still this member's newest of its message.

        Where that fails or is cancelled, what should have gone to the dead letters comes again, to be rejected anew.
        """
        self._check_open()
        due = asyncio.get_running_loop().time() + delay_s
        current = [delivery for delivery in deliveries if self._is_current(delivery)]
        # From here on the deliveries are spent, also while the server is waited for.
        last = [self._again(delivery, delivery.rejections) for delivery in current if is_last_chance(delivery)]
        for delivery in current:
            if not is_last_chance(delivery):
                self._delay(self._again(delivery, delivery.rejections + 1), due)
        try:
            if current:
                await self._insist(lambda: self._reject(current, reason))
        except BaseException:
            for again in last:
                self._delay(again, due)
            raise
        for again in last:
            self._disown(again)

    def _again(self, delivery: Delivery, rejections: int) -> Delivery:
        token: Token = delivery.token
        return self._own(token.topic, token.entry, delivery.message, delivery.message_id, rejections)

    def _delay(self, delivery: Delivery, due: float) -> None:
        heapq.heappush(self._delayed, (due, delivery.token.serial, delivery))

    def _own(self, topic: str, entry: Hashable, message: Message, message_id: str, rejections: int) -> Delivery:
        serial = next(self._serials)
        self._owned[topic, entry] = serial
        return Delivery(message, message_id, rejections, Token(topic, entry, serial))

    def _disown(self, delivery: Delivery) -> None:
        self._owned.pop((delivery.token.topic, delivery.token.entry), None)

    def _disown_where(self, is_gone: Callable[[str, Any], bool]) -> None:
        """Forgets what is another member's now, also where it waits to be handed out."""
        self._owned = {key: serial for key, serial in self._owned.items() if not is_gone(*key)}
        self._buffer = deque(item for item in self._buffer if self._is_current(item))

    def _is_current(self, delivery: Delivery) -> bool:
        token: Token = delivery.token
        return self._owned.get((token.topic, token.entry)) == token.serial

    def _next_due_s(self) -> float | None:
        now = asyncio.get_running_loop().time()
        while self._delayed and self._delayed[0][0] <= now:
            delivery = heapq.heappop(self._delayed)[2]
            if self._is_current(delivery):
                self._buffer.append(delivery)
        return self._delayed[0][0] - now if self._delayed else None


def is_last_chance(delivery: Delivery) -> bool:
    """Says whether one more rejection moves this delivery to the dead letters."""
    return delivery.rejections + 1 >= MAX_REJECTIONS
