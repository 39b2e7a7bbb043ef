"""Pulsar: ``pulsar[+ssl]://[:token@]host:port[,host:port][/tenant/namespace]``; one topic without partitions per topic.

Options of the URL: ``admin`` (the HTTP interface; ``http://host:8080``, with TLS ``https://host:8443``), ``ca`` (file
with the authority to trust), ``cert`` and ``key`` (the client's own certificate; it stands in for a token),
``retention_s`` (a week). The token's role needs ``produce`` and ``consume`` on the namespace, and the topic operations
of the admin interface.

- A position is ledger and entry of a message. Readers alone keep no message, so each topic has a durable subscription,
  the *keeper*, which nobody consumes; trimming moves it on. Trimming keeps the message that a position names.
- What nobody trims is kept for ``retention_s``, and of topics with groups or listeners for ten minutes, beside what the
  groups have yet to acknowledge; whoever uses a topic sees to that once a minute.
- A rejected message comes back a tenth of a second late: the client collects rejections.
- A topic that is deleted while others publish to it is made anew: by the server as long as one of them has a producer,
  which ends half an hour after its last message; its keeper is made with their next message.
- A consumer that stood still gets what was on its way to it, also where another has done it since.
- The server counts rejections in its memory: after its restart a message has five of them again.
- ``publish`` returns when the bookies have the message; for a loss of power they need ``journalSyncData=true``, their
  default. A server needs ``managedLedgerNewEntriesCheckDelayInMillis=0`` or every hop takes 10 ms.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from brokers.base import Broker, Capabilities, Durability, Edge, Entry, Message, Position, Subscription
from brokers.calls import Calls
from brokers.errors import BrokerUnavailableError, MessageTooLargeError, PositionTrimmedError
from brokers.pulsar_admin import Admin, Place
from brokers.pulsar_durability import durability
from brokers.pulsar_link import MAX_MESSAGE_BYTES, Link
from brokers.pulsar_readers import Readers, parse_position, position_of
from brokers.pulsar_subscriptions import Listener, Member
from brokers.reconnect import Backoff
from brokers.tls import TLS_OPTIONS
from brokers.urls import BrokerUrl, parse_url

T = TypeVar("T")

OPTIONS: Final = (*TLS_OPTIONS, "admin", "retention_s")


class PulsarBroker(Broker):
    """A connection to a cluster."""

    capabilities = Capabilities(survives_process=True, topics_are_dear=False, max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, url: BrokerUrl) -> None:
        self._link = Link(url)
        self._calls = Calls("pulsar broker")
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
        """Sends the batch, many at once."""
        self._calls.check_open()
        for message in messages:
            if len(message.body) > MAX_MESSAGE_BYTES:
                raise MessageTooLargeError(message.topic, len(message.body), MAX_MESSAGE_BYTES)
        if messages:
            await self._calls.run(lambda: self._link.publish(messages))

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Joins a shared subscription, or listens."""
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
        """Reads a topic by message id."""
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + timeout_s, Backoff()
        places: list[Place | None] = []
        while True:
            left_s = deadline - loop.time()
            try:
                if not places:
                    places.append(await self._call(partial(self._place, topic, after)))
                entries = await self._call(partial(self._read_once, topic, places[0], max_count, max(0.0, left_s)))
            except BrokerUnavailableError:
                if left_s <= 0:
                    raise
                await asyncio.sleep(min(backoff.pause_s(), left_s))
                continue
            if entries or left_s <= 0:
                return entries

    async def _place(self, topic: str, after: Position | Edge) -> Place | None:
        if not isinstance(after, Edge) and self._readers.stands_at(topic, after):
            return parse_position(topic, after)
        return await self._readers.place(topic, after)

    async def _read_once(self, topic: str, place: Place | None, max_count: int, wait_s: float) -> list[Entry]:
        async with self._readers.borrow(topic, place) as reader:
            return await reader.take(max_count, wait_s)

    async def end(self, topic: str) -> Position | Edge:
        """Returns the place of the last message."""
        place = await self._call(partial(self._readers.place, topic, Edge.END))
        return position_of(place) if place is not None else Edge.START

    async def trim(self, topic: str, before: Position) -> None:
        """Moves the keeper on."""
        with suppress(PositionTrimmedError):
            await self._call(partial(self._link.admin.trim, topic, parse_position(topic, before)))

    async def depth(self, topic: str, group: str) -> int:
        """Returns the backlog of a subscription."""
        return await self._call(partial(self._link.admin.backlog, topic, group))

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes topics with their keeper."""
        await self._call(lambda: self._link.ensure(topics))

    async def topics(self, prefix: str) -> list[str]:
        """Returns the topics of the namespace."""
        found = await self._call(self._link.admin.topics)
        return [name for name in found if name.startswith(prefix)]

    async def delete_topic(self, topic: str) -> None:
        """Deletes a topic with its subscriptions; its consumers make it anew."""
        await self._call(partial(self._delete, topic))

    async def durability(self, topic: str) -> Sequence[Durability]:
        """Returns the settings of the namespace and, where the role is told, of the server."""
        admin = self._link.admin
        return await self._call(lambda: _durability(admin))

    async def _delete(self, topic: str) -> None:
        await self._readers.forget(topic)
        await self._link.forget(topic)
        await self._link.admin.delete(topic)

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        with self._link.errors():
            return await self._calls.run(work)


async def _durability(admin: Admin) -> Sequence[Durability]:
    return durability(await admin.persistence(), await admin.configuration())


def from_url(url: str) -> PulsarBroker:
    """Returns a broker for ``pulsar://`` or ``pulsar+ssl://``."""
    parts = parse_url(url, 6650, OPTIONS)
    if parts.path and parts.path.count("/") != 1:
        raise ValueError(f"path {parts.path!r} must be tenant/namespace")
    if parts.user and not parts.password:
        raise ValueError("a token stands behind a colon: pulsar://:TOKEN@host")
    return PulsarBroker(parts)
