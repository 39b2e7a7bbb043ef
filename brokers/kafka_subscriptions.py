"""Consumers on Kafka: members of a group, and listeners.

Rules of a member:

- The server assigns each topic to one member of the group, and to the same one as long as it lives.
- What is done is kept in a ``Ledger`` per topic and committed with every acknowledgement and rejection; a new owner of
  the topic begins with it, so it gets exactly what is not done.
- A topic that is deleted and made anew is another log, whose offsets begin at the beginning, but fetches and commits go
  by its name. So a ledger, a delivery and a commit name their log, and those of another log count for nothing. The id
  of the log is asked for before its records are fetched, and every few seconds: what was fetched of a newer log than
  the ledger's comes again.
- A member commits when it begins, so that nobody lets go of what its group has yet to do.
- After a reassignment that leaves a topic here it is read again from what is not done; what is held is recognised and
  passed over. Others may have had the topic in between (when this member stood still for longer than its
  session): what they committed is merged into the ledger before it is used again, so a commit never goes back.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener
from aiokafka import errors as kafka
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from brokers import kafka_upkeep
from brokers.base import DEAD_SUFFIX, REASON_HEADER, Delivery, Subscription
from brokers.errors import BrokerUnavailableError
from brokers.holding import HoldingSubscription, Token, is_last_chance
from brokers.kafka_commits import commit_of
from brokers.kafka_ledger import MANY, Ledger
from brokers.kafka_link import Link, good_bye, message_of, partition
from brokers.kafka_upkeep import Place, Upkeep
from brokers.pulling import PullingSubscription

log = structlog.get_logger(__name__)

#: Longest wait of one fetch, in milliseconds.
_SLICE_MS = 1000
#: Time between two looks for a topic that was deleted, in seconds.
_LOOK_EVERY_S = 5.0
#: A handler may take as long as it likes: whether its process lives is told by heartbeats.
_MAX_POLL_INTERVAL_MS = 24 * 3600 * 1000

#: What a commit raises while the group is being reassigned.
_REASSIGNED = (
    kafka.CommitFailedError,
    kafka.IllegalGenerationError,
    kafka.IllegalStateError,
    kafka.RebalanceInProgressError,
    kafka.UnknownMemberIdError,
)


class Member(HoldingSubscription):
    """A consumer of a group."""

    def __init__(
        self, link: Link, topics: Sequence[str], group: str, consumer: str, left: Callable[[Subscription], None]
    ) -> None:
        super().__init__()
        self._link = link
        self._topics = tuple(topics)
        self._group = group
        self._left = left
        session_ms = int(link.claim_after_s * 1000)
        self._consumer: Any = link.consumer(
            group,
            client_id=consumer,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(1000, session_ms // 3),
            max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
            # A topic that is gone is taken from its member; only this look brings it back when it was made anew.
            metadata_max_age_ms=int(_LOOK_EVERY_S * 1000),
            # The driver keeps what was assigned in the class: members of one process must not share it.
            partition_assignment_strategy=(type("Assignor", (StickyPartitionAssignor,), {}),),
        )
        #: Topic -> what is done of it, for the topics that are assigned here.
        self._ledgers: dict[str, Ledger] = {}
        #: Those of them that know what was committed before the last assignment.
        self._current: set[str] = set()
        self._assignment = 0
        self._next_look_at = 0.0
        self._updating = asyncio.Lock()
        self._upkeep = Upkeep(link, self._done, 0.0)

    async def start(self) -> None:
        """Joins the group."""
        await self._link.ensure(self._topics)
        await self._link.log_ids(self._topics)  # said here if the server has none
        self._consumer.subscribe(self._topics, listener=_Reassignment(self._forget_others))
        await self._consumer.start()
        self._upkeep.start()

    def _forget_others(self, assigned: set[str]) -> None:
        self._assignment += 1
        self._current.clear()
        for topic in set(self._ledgers) - assigned:
            del self._ledgers[topic]
        self._disown_where(lambda topic, _: topic not in assigned)

    async def _pull(self, max_count: int) -> list[Delivery]:
        with self._link.errors(is_contact=False):
            await self._look_for_deleted()
            for place in self._consumer.assignment():
                await self._bring_up_to_date(place)
            logs = {topic: ledger.log_id for topic, ledger in self._ledgers.items()}
            batches = await self._consumer.getmany(timeout_ms=_SLICE_MS, max_records=max_count)
            if batches:
                self._link.lifeline.found()
        return [item for place, records in batches.items() for item in self._take(place, records, logs)]

    async def _bring_up_to_date(self, place: Any) -> None:
        async with self._updating:
            topic, assignment = place.topic, self._assignment
            if topic in self._current:
                return
            log_id = await self._link.log_id(topic)
            found = await commit_of(self._link, topic, self._group, log_id)
            ledger = self._ledgers.get(topic)
            if ledger is None or ledger.log_id != log_id:
                ledger = found or Ledger(0, log_id=log_id)
            elif found is not None:
                ledger.merge(found)
            ledger.fit(await self._begin(place), (await self._consumer.end_offsets([place]))[place])
            if found is None:
                await self._commit_offsets({place: (ledger.low, ledger.metadata())})
            if assignment == self._assignment and place in self._consumer.assignment():
                self._ledgers[topic] = ledger
                self._current.add(topic)
                self._disown_where(lambda name, entry: name == topic and not ledger.is_open(entry))
                self._consumer.seek(place, ledger.low)

    async def _look_for_deleted(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_look_at or not self._ledgers:
            return
        self._next_look_at = now + _LOOK_EVERY_S
        found = await self._link.log_ids(list(self._ledgers))
        for topic, ledger in list(self._ledgers.items()):
            if found.get(topic) != ledger.log_id:
                log.warning("kafka_topic_made_anew", topic=topic, group=self._group)
                self._let_go(topic)

    def _let_go(self, topic: str) -> None:
        self._current.discard(topic)
        self._ledgers.pop(topic, None)
        self._disown_where(lambda name, _: name == topic)

    async def _begin(self, place: Any) -> int:
        return int((await self._consumer.beginning_offsets([place]))[place])

    def _take(self, place: Any, records: list[Any], logs: Mapping[str, str]) -> Iterable[Delivery]:
        topic = place.topic
        if topic not in self._current:
            return  # assigned in this moment: it is read again with its ledger
        ledger = self._ledgers[topic]
        if ledger.log_id != logs.get(topic):  # fetched before it was known of which log
            if place in self._consumer.assignment():
                self._consumer.seek(place, ledger.low)
            return
        for record in records:
            entry = (ledger.log_id, record.offset)
            if not ledger.is_done(record.offset) and (topic, entry) not in self._owned:
                rejections = ledger.rejections.get(record.offset, 0)
                yield self._own(topic, entry, message_of(topic, record), _id_of(record), rejections)

    async def _finish(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            ledger = self._ledgers.get(delivery.token.topic)
            if ledger is not None and ledger.is_open(delivery.token.entry):
                ledger.finish(delivery.token.entry[1])
        await self._commit({delivery.token.topic for delivery in deliveries})

    async def _reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        dead = [delivery for delivery in deliveries if is_last_chance(delivery)]
        await self._link.publish(
            item.message._replace(
                topic=item.message.topic + DEAD_SUFFIX, headers={**item.message.headers, REASON_HEADER: reason}
            )
            for item in dead
        )
        for delivery in deliveries:
            token: Token = delivery.token
            ledger = self._ledgers.get(token.topic)
            if ledger is None or not ledger.is_open(token.entry):
                continue
            if is_last_chance(delivery):
                ledger.finish(token.entry[1])
            else:
                ledger.rejections[token.entry[1]] = delivery.rejections + 1
        await self._commit({delivery.token.topic for delivery in deliveries})

    async def _commit(self, topics: Iterable[str]) -> None:
        offsets: dict[Any, tuple[int, str]] = {}
        with self._link.errors():
            for topic in topics:
                place = partition(topic)
                if topic not in self._ledgers or place not in self._consumer.assignment():
                    # Another member's by now, to whom it comes again: the price of a reassignment.
                    log.info("kafka_acknowledged_too_late", topic=topic, group=self._group)
                    continue
                await self._bring_up_to_date(place)
                if topic not in self._current:
                    raise BrokerUnavailableError(self._link.lifeline.url, "reassignment")
                ledger = self._ledgers[topic]
                if ledger.done_count > MANY:
                    ledger.skip_to(await self._begin(place))
                offsets[place] = (ledger.low, ledger.metadata())
            if offsets:
                await self._commit_offsets(offsets)

    async def _commit_offsets(self, offsets: Mapping[Any, tuple[int, str]]) -> None:
        try:
            await self._consumer.commit(offsets)
        except _REASSIGNED as exc:
            raise BrokerUnavailableError(self._link.lifeline.url, f"reassignment: {exc}") from exc

    async def _done(self) -> Mapping[str, Place]:
        return {topic: Place(ledger.log_id, ledger.low) for topic, ledger in self._ledgers.items()}

    async def close(self) -> None:
        """Leaves the group, which then reassigns its topics."""
        if not self._closed.is_set():
            self._closed.set()
            self._left(self)
            await self._upkeep.close()
            await self._stop_fetching()
            await good_bye(self._consumer.stop())


class _Reassignment(ConsumerRebalanceListener):  # type: ignore[misc]  # the driver has no annotations
    def __init__(self, assigned: Callable[[set[str]], None]) -> None:
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Keeps everything: most of it comes back in a moment."""

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Lets go of what went to others."""
        self._assigned({place.topic for place in assigned})


class Listener(PullingSubscription):
    """A broadcast: reads on from the present end of each topic."""

    def __init__(self, link: Link, topics: Sequence[str], left: Callable[[Subscription], None]) -> None:
        super().__init__()
        self._link = link
        self._topics = tuple(topics)
        self._left = left
        self._consumer: Any = link.consumer(None, auto_offset_reset="latest")
        self._upkeep = Upkeep(link, self._heard, kafka_upkeep.KEPT_S)

    async def start(self) -> None:
        """Fixes the place from which on it listens."""
        await self._link.ensure(self._topics)
        await self._consumer.start()
        places = [partition(topic) for topic in self._topics]
        self._consumer.assign(places)
        for place, offset in (await self._consumer.end_offsets(places)).items():
            self._consumer.seek(place, offset)
        self._upkeep.start()

    async def _heard(self) -> Mapping[str, Place]:
        ids = await self._link.log_ids(self._topics)
        return {topic: Place(ids[topic], await self._consumer.position(partition(topic))) for topic in ids}

    async def _pull(self, max_count: int) -> list[Delivery]:
        with self._link.errors(is_contact=False):
            batches = await self._consumer.getmany(timeout_ms=_SLICE_MS, max_records=max_count)
            if batches:
                self._link.lifeline.found()
        records = [record for batch in batches.values() for record in batch]
        return [Delivery(message_of(record.topic, record), _id_of(record)) for record in records]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Has no effect: broadcasts are not redelivered."""
        self._check_open()

    async def close(self) -> None:
        """Stops listening."""
        if not self._closed.is_set():
            self._closed.set()
            self._left(self)
            await self._upkeep.close()
            await self._stop_fetching()
            await good_bye(self._consumer.stop())


def _id_of(record: Any) -> str:
    """Returns a message's id: offsets begin anew with a topic, its time does not."""
    return f"{record.timestamp}-{record.offset}"
