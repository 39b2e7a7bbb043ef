"""Consumers on Pulsar: members of a group (shared subscriptions), and listeners (readers from the end).

Rejections are counted by the server, which does not count lost consumers; the delay before one is kept here, since
the driver knows a single delay per consumer.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import pulsar
import structlog

from brokers.base import DEAD_SUFFIX, MAX_REJECTIONS, REASON_HEADER, Delivery, Edge, Subscription
from brokers.pulling import PullingSubscription
from brokers.pulsar_link import Link, Pump, good_bye, message_of
from brokers.pulsar_readers import Readers, place_of, position_of

log = structlog.get_logger(__name__)

#: Messages that a member fetches ahead of what was asked for: what it holds, others do not get.
_AHEAD: Final = 16
#: Longest wait of one fetch, in seconds.
_SLICE_S: Final = 1.0
#: The driver sends acknowledgements every 100 ms and has no call that waits for that.
_ACK_LEAVES_S: Final = 0.15
#: What groups and listeners have read is no log: the keeper lets go of it after this time, in seconds.
_KEPT_S: Final = 600.0


class _Token(NamedTuple):
    consumer: Any
    received: Any


class _Pumping(PullingSubscription):
    """Receives from one source per topic."""

    def __init__(self, topics: Sequence[str], left: Callable[[Subscription], None]) -> None:
        super().__init__()
        self._topics = tuple(topics)
        self._left = left
        self._sources: list[tuple[str, Any, Pump]] = []

    async def _arrivals(self, max_count: int) -> list[tuple[str, Any, Any]]:
        waiting = {pump.waiting() for _, _, pump in self._sources}
        await asyncio.wait(waiting, timeout=_SLICE_S, return_when=asyncio.FIRST_COMPLETED)
        arrived: list[tuple[str, Any, Any]] = []
        for topic, source, pump in self._sources:
            arrived += [(topic, source, received) for received in pump.take(max_count - len(arrived))]
        # Whoever was first now is last the next time: a busy topic does not starve the others.
        self._sources.append(self._sources.pop(0))
        return arrived

    async def close(self) -> None:
        """Leaves; what was not acknowledged goes to another consumer."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._left(self)
        await self._stop_fetching()
        for _, source, pump in self._sources:
            pump.stop()
            await good_bye(source.close())


class Member(_Pumping):
    """A consumer of a group."""

    def __init__(
        self, link: Link, topics: Sequence[str], group: str, consumer: str, left: Callable[[Subscription], None]
    ) -> None:
        super().__init__(topics, left)
        self._link = link
        self._group = group
        self._name = consumer
        #: Message id -> the delivery of it that can still be rejected.
        self._held: dict[tuple[str, str], Delivery] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._returns: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Joins the group."""
        await self._link.ensure(self._topics, _KEPT_S)
        for topic in self._topics:
            consumer = await self._link.client.subscribe(
                self._link.name(topic),
                self._group,
                consumer_type=pulsar.ConsumerType.Shared,
                consumer_name=self._name,
                initial_position=pulsar.InitialPosition.Earliest,
                receiver_queue_size=_AHEAD,
                negative_ack_redelivery_delay_ms=1,
            )
            self._sources.append((topic, consumer, Pump(consumer.receive, _AHEAD)))

    async def _pull(self, max_count: int) -> list[Delivery]:
        with self._link.errors(is_contact=False):
            arrived = await self._arrivals(max_count)
        if arrived:
            self._link.lifeline.found()
        return [self._deliver(topic, consumer, received) for topic, consumer, received in arrived]

    def _deliver(self, topic: str, consumer: Any, received: Any) -> Delivery:
        message_id = position_of(place_of(received)).decode()
        token = _Token(consumer, received)
        delivery = Delivery(message_of(topic, received), message_id, received.redelivery_count(), token)
        self._held[topic, message_id] = delivery
        return delivery

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges, and returns when that has left for the server."""
        self._check_open()
        with self._link.errors(is_contact=False):
            for delivery in deliveries:
                self._let_go(delivery)
                await delivery.token.consumer.acknowledge(delivery.token.received)
        if deliveries:
            await asyncio.sleep(_ACK_LEAVES_S)

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Rejects each delivery that is still this member's newest of its message.

        Where that fails or is cancelled, what should have gone to the dead letters comes again, to be rejected anew.
        """
        self._check_open()
        current = [item for item in deliveries if self._held.get((item.message.topic, item.message_id)) is item]
        last = [delivery for delivery in current if delivery.rejections + 1 >= MAX_REJECTIONS]
        for delivery in current:
            self._let_go(delivery)
            if delivery.rejections + 1 < MAX_REJECTIONS:
                self._delay(delivery, delay_s)
        if last:
            await self._bury_or_delay(last, delay_s, reason)

    async def _bury_or_delay(self, deliveries: Sequence[Delivery], delay_s: float, reason: str) -> None:
        try:
            await self._insist(lambda: self._bury(deliveries, reason))
            await self.ack(deliveries)
        except BaseException:
            if not self._closed.is_set():
                for delivery in deliveries:
                    self._delay(delivery, delay_s)
            raise

    async def _bury(self, deliveries: Sequence[Delivery], reason: str) -> None:
        await self._link.publish(
            [
                item.message._replace(
                    topic=item.message.topic + DEAD_SUFFIX, headers={**item.message.headers, REASON_HEADER: reason}
                )
                for item in deliveries
            ]
        )

    def _delay(self, delivery: Delivery, delay_s: float) -> None:
        key = (delivery.message.topic, delivery.message_id)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(delay_s, self._give_back, key, delivery.token)

    def _give_back(self, key: tuple[str, str], token: _Token) -> None:
        del self._timers[key]
        returning = asyncio.ensure_future(token.consumer.negative_acknowledge(token.received))
        self._returns.add(returning)
        returning.add_done_callback(self._returned)

    def _returned(self, returning: "asyncio.Future[None]") -> None:
        self._returns.discard(returning)
        if not returning.cancelled() and (failure := returning.exception()) is not None:
            # The consumer is lost: the server hands out again all that it held.
            log.info("pulsar_rejection_not_counted", group=self._group, reason=str(failure))

    def _let_go(self, delivery: Delivery) -> None:
        key = (delivery.message.topic, delivery.message_id)
        self._held.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def close(self) -> None:
        """Leaves; what was not acknowledged goes to another consumer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._returns:
            await asyncio.wait(set(self._returns))
        await super().close()


class Listener(_Pumping):
    """A broadcast: reads on from the present end of each topic."""

    def __init__(self, link: Link, topics: Sequence[str], left: Callable[[Subscription], None]) -> None:
        super().__init__(topics, left)
        self._link = link

    async def start(self) -> None:
        """Fixes the place from which on it listens."""
        await self._link.ensure(self._topics, _KEPT_S)
        readers = Readers(self._link)
        for topic in self._topics:
            reader = await readers.make(topic, await readers.place(topic, Edge.END))
            self._sources.append((topic, reader, Pump(reader.read_next, _AHEAD)))

    async def _pull(self, max_count: int) -> list[Delivery]:
        with self._link.errors(is_contact=False):
            arrived = await self._arrivals(max_count)
        if arrived:
            self._link.lifeline.found()
        return [
            Delivery(message_of(topic, received), position_of(place_of(received)).decode())
            for topic, _, received in arrived
        ]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()
