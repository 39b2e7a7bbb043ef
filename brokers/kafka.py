"""Kafka: ``kafka[s]://[user:password@]host:port[,host:port]``; one topic of one partition per topic.

Options of the URL: ``mechanism`` (SCRAM-SHA-256; PLAIN, SCRAM-SHA-512), ``ca`` (file with the authority to trust),
``cert`` and ``key`` (the client's own certificate), ``claim_after_s`` (30: a consumer that is silent so long counts as
dead; the server must allow such a session time-out), ``replication`` (of topics made here; 3, or the number of
brokers), ``retention_s`` (of topics made here; a week).

- A position is the offset that follows. Logs are trimmed by deleting records. So is, every few minutes, what all groups
  of a topic have acknowledged, and what listeners have heard ten minutes before.
- A group's state is its committed offset and, in the offset's metadata, of which log it is and what was acknowledged
  beyond it. One consumer of a group reads a topic at a time, the others stand by.
- ``delete_topic`` empties a topic and keeps it: offsets of a new topic of the same name would mean other messages.
- ``publish`` returns when all in-sync replicas have the message (``acks=all``). Kafka answers before it has written to
  disk, so surviving a loss of power takes replicas: topics are made with three of them and ``min.insync.replicas`` 2
  where there are as many brokers; of a cluster or a topic with weaker settings a warning is logged. A kill of the
  server alone loses nothing. A topic with several partitions is refused: what lies in the others would never be read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from aiokafka import errors as kafka
from aiokafka.admin import RecordsToDelete

from brokers.base import Broker, Capabilities, Durability, Edge, Entry, Message, Position, Subscription
from brokers.calls import Calls
from brokers.errors import BrokerUnavailableError, MessageTooLargeError, PositionTrimmedError
from brokers.kafka_commits import committed
from brokers.kafka_durability import durability
from brokers.kafka_link import LEADERLESS, MAX_MESSAGE_BYTES, Link, partition
from brokers.kafka_readers import Readers, offset_of, position_of
from brokers.kafka_subscriptions import Listener, Member
from brokers.reconnect import Backoff
from brokers.tls import TLS_OPTIONS
from brokers.urls import BrokerUrl, parse_url

T = TypeVar("T")

#: How long to wait for servers to hear of a topic, in seconds.
_LEADER_PATIENCE_S: Final = 10.0

OPTIONS: Final = (*TLS_OPTIONS, "claim_after_s", "mechanism", "replication", "retention_s")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class KafkaBroker(Broker):
    """A connection to a cluster."""

    capabilities = Capabilities(survives_process=True, topics_are_dear=True, max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, url: BrokerUrl) -> None:
        self._link = Link(url)
        self._calls = Calls("kafka broker")
        self._readers = Readers(self._link)
        self._subscriptions: set[Subscription] = set()

    async def open(self) -> None:
        """Connects."""
        await self._link.open()
        self._calls.open()

    async def close(self) -> None:
        """Closes subscriptions, ends pending calls and disconnects."""
        for subscription in list(self._subscriptions):
            await subscription.close()
        self._calls.close()
        await self._readers.close()
        await self._link.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Sends the batch at once; the driver makes one request of it per server."""
        self._calls.check_open()
        for message in messages:
            if len(message.body) > MAX_MESSAGE_BYTES:
                raise MessageTooLargeError(message.topic, len(message.body), MAX_MESSAGE_BYTES)
        await self._calls.run(lambda: self._link.publish(messages))

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Joins a group, which takes about a second, or listens."""
        subscription: Member | Listener
        if group is None:
            subscription = Listener(self._link, topics, self._subscriptions.discard)
        else:
            subscription = Member(self._link, topics, group, consumer, self._subscriptions.discard)
        self._calls.check_open()
        self._subscriptions.add(subscription)
        try:
            await self._call(subscription.start)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Reads a partition by offset."""
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + timeout_s, Backoff()
        place = after
        while True:
            left_s = deadline - loop.time()
            try:
                place, entries = await self._call(partial(self._read_once, topic, place, max_count, left_s))
            except BrokerUnavailableError:
                if left_s <= 0:
                    raise
                await asyncio.sleep(min(backoff.pause_s(), left_s))
                continue
            if entries or left_s <= 0:
                return entries

    async def _read_once(
        self, topic: str, after: Position | Edge, max_count: int, wait_s: float
    ) -> tuple[Position, list[Entry]]:
        offset = await self._readers.place(topic, after)
        offset, entries = await self._readers.take(topic, offset, max_count, max(0.0, wait_s))
        return position_of(offset), entries

    async def end(self, topic: str) -> Position | Edge:
        """Returns the offset that the next message will have."""
        offset = await self._call(lambda: self._readers.end(topic))
        return position_of(offset) if offset else Edge.START

    async def trim(self, topic: str, before: Position) -> None:
        """Deletes the records before a position."""
        with suppress(PositionTrimmedError):
            offset = offset_of(topic, before)
            await self._call(lambda: self._delete_records(topic, offset))

    async def depth(self, topic: str, group: str) -> int:
        """Returns the messages behind the committed offset that are not acknowledged."""
        return await self._call(lambda: self._depth(topic, group))

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes topics with the settings that all of ours have."""
        await self._call(lambda: self._link.ensure(topics))

    async def topics(self, prefix: str) -> list[str]:
        """Returns the topics of the cluster."""
        found = await self._call(self._link.admin.list_topics)
        return [name for name in found if name.startswith(prefix)]

    async def delete_topic(self, topic: str) -> None:
        """Deletes the topic's records."""
        self._readers.forget(topic)
        await self._call(lambda: self._delete_records(topic, -1))

    async def _depth(self, topic: str, group: str) -> int:
        begin = await self._readers.begin(topic)
        ledger = await committed(self._link, topic, group)
        end = await self._readers.end(topic)
        ledger.fit(begin, end)
        return end - ledger.low - ledger.done_count

    async def discard_topic(self, topic: str) -> None:
        """Deletes a topic, and with it what groups have committed of it."""
        self._readers.forget(topic)
        await self._call(partial(self._discard, topic))

    async def _discard(self, topic: str) -> None:
        answer = await self._link.admin.delete_topics([topic])
        for _, code, *_ in answer.topic_error_codes:
            if code not in (kafka.NoError.errno, kafka.UnknownTopicOrPartitionError.errno):
                raise kafka.for_code(code)

    async def durability(self, topic: str) -> Sequence[Durability]:
        """Returns the settings of a topic, its own or the servers' defaults."""
        return await self._call(lambda: durability(self._link.admin, topic))

    async def _delete_records(self, topic: str, before: int) -> None:
        give_up_at, backoff = asyncio.get_running_loop().time() + _LEADER_PATIENCE_S, Backoff()
        while True:
            await self._link.ensure([topic])
            try:
                await self._link.admin.delete_records({partition(topic): RecordsToDelete(before_offset=before)})
            except kafka.OffsetOutOfRangeError:
                return  # the log never reached it: there is nothing to let go of
            except LEADERLESS:  # just made, and the servers have not all heard of it; or deleted underneath
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
            else:
                return
            self._link.forget_topics()
            await asyncio.sleep(backoff.pause_s())

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        with self._link.errors():
            return await self._calls.run(work)


def from_url(url: str) -> KafkaBroker:
    """Returns a broker for ``kafka://`` or ``kafkas://``."""
    parts = parse_url(url, 9092, OPTIONS)
    if parts.options.get("mechanism", _MECHANISMS[0]) not in _MECHANISMS:
        raise ValueError(f"option mechanism must be one of {', '.join(_MECHANISMS)}")
    if not parts.options.get("replication", "1").isdecimal():
        raise ValueError("option replication must be a number")
    return KafkaBroker(parts)
