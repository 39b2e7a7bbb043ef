"""Typed publish and subscribe over a broker that knows bytes only.

What is at-least-once, and what a caller must therefore take:

- ``publish`` sends a batch again until the broker confirms it, so a reader can see packs twice, and a pack of one
  batch twice with later ones in between. The events carry the same ids each time.
- A group's deliveries come back until they were acknowledged; ``read`` gives the same packets again for the same
  position. A dead letter is published before the reader sees the rest, hence again whenever it reads them again.
- Broadcasts are at-most-once: who does not listen misses them.

Order is kept per topic and key between calls of ``publish`` that wait for one another.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

import structlog

from brokers.base import (
    DEAD_SUFFIX,
    REASON_HEADER,
    Broker,
    Capabilities,
    Delivery,
    Edge,
    Message,
    Position,
    Subscription,
)
from brokers.errors import BrokerUnavailableError
from formicary.clock import Clock
from formicary.events.base import Event
from formicary.events.codec import Numbers, Pack, Poison, decode_pack, encode_dead, encode_packs
from formicary.outage import Outage

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Header of a dead-lettered event: its id.
EVENT_ID_HEADER: Final = "formicary-event-id"
#: Pauses between attempts to publish while the broker is lost, in seconds: doubled from the first to the last.
FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 2.0
_REASON_LIMIT: Final = 500


class Outgoing(NamedTuple):
    """An event on its way; ``key`` chooses the ordering lane within the topic."""

    topic: str
    key: str
    event: Event


class Packet(NamedTuple):
    """The events of one message of a log; reading after ``position`` gives what follows it."""

    position: Position
    events: tuple[Event, ...]
    sender: str
    sent_at: datetime | None
    #: Dead-lettered already; an attempt that one names is to be failed by the reader.
    poison: tuple[Poison, ...] = ()


class Received(NamedTuple):
    """The events of one delivery of a group or broadcast; acknowledged as a whole."""

    delivery: Delivery
    events: tuple[Event, ...]
    sender: str
    sent_at: datetime | None
    poison: tuple[Poison, ...] = ()


class Bus:
    """A broker for events. The broker is opened and closed by its owner.

    Args:
        sender: names one life of this process; event ids begin with it, so it must never be used again.
    """

    def __init__(self, broker: Broker, sender: str, clock: Clock) -> None:
        self._broker = broker
        self._sender = sender
        self._clock = clock
        self._numbers = Numbers()
        self._outage = Outage("waits_for_broker", clock.boottime)

    @property
    def capabilities(self) -> Capabilities:
        """Returns what the broker can do."""
        return self._broker.capabilities

    async def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Publishes events, packed by topic and key in their order, and returns when the broker has all of them.

        While the broker is lost it tries again, for ever; cancelling ends that, and any part may have been sent.

        Raises:
            DataError: an event has a value that cannot be sent; nothing was published.
            MessageTooLargeError: an event exceeds what the broker carries; nothing was published.
        """
        lanes: dict[tuple[str, str], list[Event]] = {}
        for topic, key, event in outgoing:
            lane = lanes.get((topic, key))
            if lane is None:
                lanes[topic, key] = lane = []
            lane.append(event)
        now = self._clock.now()
        await self.publish_messages(
            [
                Message(topic, key, body)
                for (topic, key), events in lanes.items()
                for body in encode_packs(events, self._sender, self._numbers, now)
            ]
        )

    async def publish_messages(self, messages: Sequence[Message]) -> None:
        """Publishes bodies of the caller's own making (documented JSON) as ``publish`` does."""
        if messages:
            await self._insist(lambda: self._broker.publish(messages))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats a call that is safe to repeat for as long as the broker is lost."""
        try:
            return await call()
        except BrokerUnavailableError as exc:
            self._outage.note(exc.reason)
        pause_s = FIRST_RETRY_S
        while True:
            await self._clock.sleep(pause_s)
            try:
                result = await call()
            except BrokerUnavailableError as exc:
                self._outage.note(exc.reason)
            else:
                self._outage.over()
                return result
            pause_s = min(pause_s * 2, LAST_RETRY_S)

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Packet]:
        """Returns up to ``max_count`` packets behind ``after``, in order; waits up to ``timeout_s`` for the first.

        Raises:
            PositionTrimmedError: the log no longer reaches back to ``after``.
            BrokerUnavailableError: the broker is lost; read again.
        """
        entries = await self._broker.read(topic, after, max_count, timeout_s)
        packets: list[Packet] = []
        for position, message in entries:
            pack = decode_pack(message.body)
            if pack.poison:
                await self.bury(message, pack)
            packets.append(Packet(position, pack.events, pack.sender, pack.sent_at, pack.poison))
        return packets

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> "BusSubscription":
        """Joins ``group`` as ``consumer``; None is a broadcast from now on, without acknowledgement.

        Waits, for ever, for a broker that is lost.
        """
        subscription = await self._insist(lambda: self._broker.subscribe(topics, group, consumer))
        return BusSubscription(self, subscription, is_broadcast=group is None)

    async def subscribe_messages(self, topics: Sequence[str], group: str, consumer: str) -> Subscription:
        """Joins ``group`` for messages of other services, whose bodies are no packs: the caller reads them itself.

        Waits, for ever, for a broker that is lost.
        """
        return await self._insist(lambda: self._broker.subscribe(topics, group, consumer))

    async def broadcast(self, topics: Sequence[str]) -> "BusSubscription":
        """Listens to everything published on ``topics`` from now on."""
        return await self.subscribe(topics, None, self._sender)

    async def end(self, topic: str) -> Position | Edge:
        """Returns the present end of a log: reading after it gives what is published from now on.

        Waits, for ever, for a broker that is lost.
        """
        return await self._insist(lambda: self._broker.end(topic))

    async def trim(self, topic: str, before: Position) -> None:
        """Lets go of everything up to and including the packet at ``before``."""
        await self._broker.trim(topic, before)

    async def depth(self, topic: str, group: str) -> int:
        """Returns how many messages (packs) of ``topic`` the group has yet to acknowledge."""
        return await self._broker.depth(topic, group)

    async def settle(self, topic: str, group: str) -> None:
        """Returns when what was published on ``topic`` outlives this process: the server, or else ``group``, has it."""
        await self._broker.settle(topic, group)

    async def ensure_topics(self, names: Sequence[str]) -> None:
        """Makes topics that do not exist. Waits, for ever, for a broker that is lost."""
        await self._insist(lambda: self._broker.ensure_topics(names))

    async def topics(self, prefix: str) -> list[str]:
        """Returns the topics that exist and begin with ``prefix``."""
        return await self._broker.topics(prefix)

    async def delete_topic(self, topic: str) -> None:
        """Deletes a topic with all it holds; nothing happens where there is none."""
        await self._broker.delete_topic(topic)

    async def bury(self, message: Message, pack: Pack) -> None:
        """Publishes what could not be read in ``message`` to its dead-letter topic, one message per event."""
        _log_poison(message.topic, pack)
        if not message.topic.endswith(DEAD_SUFFIX):
            await self.publish_messages([_dead_letter(message, pack, poison) for poison in pack.poison])


class BusSubscription:
    """One consumer of a group, or a listener to broadcasts."""

    def __init__(self, bus: Bus, subscription: Subscription, is_broadcast: bool) -> None:
        self._bus = bus
        self._subscription = subscription
        self._is_broadcast = is_broadcast
        #: Taken from the broker and not yet returned: kept over a cancellation while dead letters are written.
        self._taken: list[Delivery] = []

    async def receive(self, max_count: int, timeout_s: float) -> list[Received]:
        """Returns up to ``max_count`` deliveries as soon as there is one; empty when ``timeout_s`` passed.

        Events that cannot be read are in the dead-letter topic when this returns; of a broadcast, which every
        listener would bury anew, they are logged only.

        Raises:
            BrokerClosedError: after ``close``.
        """
        if not self._taken:
            self._taken = await self._subscription.receive(max_count, timeout_s)
        received: list[Received] = []
        for delivery in self._taken:
            pack = decode_pack(delivery.message.body)
            if pack.poison:
                await self._report(delivery.message, pack)
            received.append(Received(delivery, pack.events, pack.sender, pack.sent_at, pack.poison))
        self._taken = []
        return received

    async def ack(self, received: Sequence[Received]) -> None:
        """Marks deliveries as done, once their effect is durable."""
        await self._subscription.ack([item.delivery for item in received])

    async def nack(self, received: Sequence[Received], delay_s: float = 0.0, reason: str = "") -> None:
        """Rejects deliveries: they come back after ``delay_s``; the fifth time they go to the dead-letter topic."""
        await self._subscription.nack([item.delivery for item in received], delay_s, reason)

    async def close(self) -> None:
        """Leaves; what was not acknowledged goes to another consumer. Safe twice."""
        await self._subscription.close()

    async def _report(self, message: Message, pack: Pack) -> None:
        if self._is_broadcast:
            _log_poison(message.topic, pack)
        else:
            await self._bus.bury(message, pack)


def _log_poison(topic: str, pack: Pack) -> None:
    for poison in pack.poison:
        log.warning("event_unreadable", topic=topic, event_id=poison.event_id, reason=poison.reason)


def _dead_letter(message: Message, pack: Pack, poison: Poison) -> Message:
    headers = {
        **message.headers,
        REASON_HEADER: poison.reason[:_REASON_LIMIT],
        EVENT_ID_HEADER: poison.event_id,
    }
    return Message(message.topic + DEAD_SUFFIX, message.key, encode_dead(pack, poison), headers)
