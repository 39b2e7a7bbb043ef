"""Redis and Valkey, from 6.2 on: ``redis[s]://[user:password@]host[:port][/db]``; one stream per topic.

Options of the URL: ``ca`` (file with the authority to trust), ``cert`` and ``key`` (the client's own certificate),
``prefix`` (of every key, for users with limited grants), ``claim_after_s`` (30: a consumer that is silent so long
counts as dead), ``retention_s`` (a week).

- A position is the id of a stream entry. Trimming keeps the entry that a position names, so a position whose entry is
  gone lies before the beginning of the log.
- A group's messages are kept until all groups of the topic acknowledged them; what nobody trims or acknowledges is
  kept for ``retention_s``; a topic that has listeners (broadcast) and no group for ten minutes.
- ``publish`` returns when Redis has answered, which it does after it wrote its append-only file. So the server needs
  ``appendonly yes``; then nothing is lost when it is killed. ``appendfsync always`` is needed for the same on a
  loss of power, where ``everysec`` may lose the last second. ``maxmemory-policy`` must be ``noeviction``. What the
  server says about these is logged when a broker opens.

What the server refuses for a while (a full disk or memory, too few replicas) counts as a loss and is waited out.
Clusters are not supported: the topics of one subscription may lie on different nodes.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import redis.asyncio as driver
import structlog
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from brokers.appetite import Appetite
from brokers.base import Broker, Capabilities, Durability, Edge, Entry, Message, Position, Subscription
from brokers.calls import Calls
from brokers.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    MessageTooLargeError,
    PositionTrimmedError,
)
from brokers.handshake import explained
from brokers.headers import decode_headers, encode_headers
from brokers.reconnect import Backoff, Lifeline
from brokers.tls import TLS_OPTIONS, tls_context, untrusted_is_refused
from brokers.urls import BrokerUrl, parse_url

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
OPTIONS: Final = (*TLS_OPTIONS, "claim_after_s", "prefix", "retention_s")
#: Longest single blocking command, in seconds; well below the socket's time limit, which finds dead connections.
SLICE_S: Final = 5.0
SOCKET_TIMEOUT_S: Final = 15.0

_REFUSALS: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
_LOSSES: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.InvalidResponse,  # another server listens there, perhaps only now
    OSError,
)
#: Of an entry.
_ID: Final = re.compile(rb"\d+-\d+")
#: Codes of refusals that pass: the disk or the scripts of the server, its replicas, its start.
_PASSING: Final = re.compile(r"\b(MISCONF|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|BUSY)\b")


class Link:
    """A client, with the names and errors of this package."""

    def __init__(self, url: BrokerUrl) -> None:
        self.prefix = url.options.get("prefix", "")
        self.claim_after_s = url.seconds("claim_after_s", 30.0)
        self.retention_s = url.seconds("retention_s", 7 * 86400.0)
        self.lifeline = Lifeline(url.shown)
        self.url = url
        #: The driver annotates its answers with the union of all protocols and modes, which says nothing here.
        self.client: Any = self._connect()

    def _connect(self) -> "driver.Redis":
        url = self.url
        host, _, port = url.hosts[0].rpartition(":")
        tls: dict[str, Any] = {}
        if url.scheme == "rediss":
            tls_context(url)  # the driver reads the files too, but only when it connects
            ca, cert, key = (url.options.get(option) for option in TLS_OPTIONS)
            tls = {"ssl": True, "ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key or cert}
        return driver.Redis(
            host=host.strip("[]"),
            port=int(port),
            db=_database(url.path),
            username=url.user or None,
            password=url.password or None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=5.0,
            max_connections=100_000,
            **tls,
        )

    def key(self, topic: str) -> str:
        """Returns the key of a topic's stream."""
        return self.prefix + topic

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translates the driver's errors and keeps the account of losses."""
        try:
            yield
        except _REFUSALS as exc:
            raise BrokerRefusedError(self.lifeline.url, _words(exc)) from exc
        except _LOSSES as exc:
            self.lifeline.lost(_words(exc))
            raise BrokerUnavailableError(self.lifeline.url, _words(exc)) from exc
        except exceptions.ResponseError as exc:
            text = _words(exc)
            if not _PASSING.search(text):
                raise BrokerRefusedError(self.lifeline.url, text) from exc
            self.lifeline.lost(text)
            raise BrokerUnavailableError(self.lifeline.url, text) from exc
        except RuntimeError as exc:
            # uvloop's word for a write to a connection that was lost a moment ago; the driver passes it on.
            if "handler is closed" not in str(exc):
                raise
            self.lifeline.lost(_words(exc))
            raise BrokerUnavailableError(self.lifeline.url, _words(exc)) from exc
        self.lifeline.found()

    def oldest(self) -> int:
        """Returns the first id that is still to be kept where nobody trims."""
        return int((time.time() - self.retention_s) * 1000)


def encode(message: Message) -> dict[Any, Any]:
    """Returns the fields of a stream entry."""
    fields: dict[Any, Any] = {b"k": message.key.encode(), b"b": message.body}
    if message.headers:
        fields[b"h"] = encode_headers(message.headers)
    return fields


def decode(topic: str, fields: dict[bytes, bytes]) -> Message:
    """Returns a message from the fields of a stream entry; what others wrote is passed on as far as it goes."""
    key = fields.get(b"k", b"").decode(errors="replace")
    return Message(topic, key, fields.get(b"b", b""), decode_headers(fields.get(b"h", b"")))


class RedisBroker(Broker):
    """A connection pool to one server."""

    capabilities = Capabilities(survives_process=True, topics_are_dear=False, max_message_bytes=MAX_MESSAGE_BYTES)

    def __init__(self, url: BrokerUrl) -> None:
        self._link = Link(url)
        self._calls = Calls("redis broker")
        self._subscriptions: set[Subscription] = set()
        #: Topic -> the position returned last: reading on from there needs no look at what was trimmed.
        self._read_up_to: dict[str, Position | Edge] = {}
        self._appetite = Appetite()

    async def open(self) -> None:
        """Connects, and logs what the server's settings mean for durability."""
        await explained(self._link.url, self._connect)
        self._calls.open()
        await self._check_durability()

    async def _connect(self) -> None:
        with untrusted_is_refused(self._link.url), self._link.errors():
            await self._link.client.ping()

    async def close(self) -> None:
        """Closes subscriptions, ends pending calls and disconnects."""
        for subscription in list(self._subscriptions):
            await subscription.close()
        self._calls.close()
        await self._link.client.aclose()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Adds the batch in one round trip."""
        self._calls.check_open()
        for message in messages:
            if len(message.body) > MAX_MESSAGE_BYTES:
                raise MessageTooLargeError(message.topic, len(message.body), MAX_MESSAGE_BYTES)
        if messages:
            await self._call(lambda: self._add(messages))

    async def _add(self, messages: Sequence[Message]) -> None:
        oldest = self._link.oldest()
        pipeline = self._link.client.pipeline(transaction=False)
        for message in messages:
            pipeline.xadd(self._link.key(message.topic), encode(message), minid=oldest, approximate=True)
        await pipeline.execute()

    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Joins a group, which is made where there is none, or listens."""
        from brokers.redis_subscriptions import Listener, Member

        self._calls.check_open()
        subscription: Member | Listener
        if group is None:
            subscription = Listener(self._link, topics, self._subscriptions.discard)
        else:
            subscription = Member(self._link, topics, group, consumer, self._subscriptions.discard)
        await self._call(subscription.start)
        self._subscriptions.add(subscription)
        return subscription

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Reads a stream by entry id."""
        self._calls.check_open()
        loop = asyncio.get_running_loop()
        deadline, backoff = loop.time() + timeout_s, Backoff()
        place: bytes | None = None
        while True:
            left_s = deadline - loop.time()
            try:
                if place is None:
                    place = await self._call(lambda: self._place(topic, after))
                entries = await self._read_once(topic, place, max_count, left_s)
            except BrokerUnavailableError:
                if left_s <= 0:
                    raise
                await asyncio.sleep(min(backoff.pause_s(), left_s))
                continue
            if entries or left_s <= 0:
                return entries

    async def _read_once(self, topic: str, place: bytes, max_count: int, wait_s: float) -> list[Entry]:
        block = max(1, int(min(wait_s, SLICE_S) * 1000)) if wait_s > 0 else None
        key, count = self._link.key(topic), self._appetite.count(max_count)
        found = await self._call(lambda: self._link.client.xread({key: place}, count=count, block=block))
        entries = [Entry(Position(entry), decode(topic, fields)) for _, items in found for entry, fields in items]
        if entries:
            self._appetite.taste([entry.message for entry in entries])
            self._read_up_to[topic] = entries[-1].position
        return entries

    async def _place(self, topic: str, after: Position | Edge) -> bytes:
        if after is Edge.START:
            return b"0-0"
        if after is Edge.END:
            end = await self._end(topic)
            return b"0-0" if isinstance(end, Edge) else end
        if self._read_up_to.get(topic) != after:
            await self._check_reaches_back(topic, after)
        return after

    async def _check_reaches_back(self, topic: str, after: Position) -> None:
        key = self._link.key(topic)
        try:
            is_there = await self._link.client.xrange(key, after, after, count=1)
        except exceptions.ResponseError:
            raise PositionTrimmedError(topic) from None  # a position of another broker
        if not is_there and await self._link.client.exists(key):
            raise PositionTrimmedError(topic)

    async def end(self, topic: str) -> Position | Edge:
        """Returns the id of the newest entry."""
        self._calls.check_open()
        end = await self._call(lambda: self._end(topic))
        self._read_up_to[topic] = end
        return end

    async def _end(self, topic: str) -> Position | Edge:
        try:
            newest = (await self._link.client.xinfo_stream(self._link.key(topic)))["last-generated-id"]
        except exceptions.ResponseError as exc:
            if isinstance(exc, _REFUSALS + _LOSSES):
                raise
            return Edge.START  # no such key
        return Edge.START if newest == b"0-0" else Position(newest)

    async def trim(self, topic: str, before: Position) -> None:
        """Drops what lies before the entry that the position names."""
        self._calls.check_open()
        if _ID.fullmatch(before):
            await self._call(lambda: self._link.client.xtrim(self._link.key(topic), minid=before, approximate=False))

    async def depth(self, topic: str, group: str) -> int:
        """Returns pending and not yet delivered entries."""
        from brokers.redis_subscriptions import depth_of

        self._calls.check_open()
        return await self._call(lambda: depth_of(self._link, topic, group))

    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes empty streams."""
        from brokers.redis_subscriptions import make

        self._calls.check_open()
        for topic in topics:
            await self._call(partial(make, self._link, topic))

    async def topics(self, prefix: str) -> list[str]:
        """Returns the streams of that name; the server looks at all of its keys for that, a thousand at a time."""
        self._calls.check_open()
        return await self._call(lambda: self._topics(prefix))

    async def _topics(self, prefix: str) -> list[str]:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._link.key(prefix)) + "*"
        keys = self._link.client.scan_iter(match=pattern, count=1000, _type="stream")
        return list({key.decode().removeprefix(self._link.prefix) async for key in keys})

    async def delete_topic(self, topic: str) -> None:
        """Deletes the stream, with its groups, and their counts of rejections."""
        from brokers.redis_subscriptions import delete

        self._calls.check_open()
        await self._call(lambda: delete(self._link, topic))
        self._read_up_to.pop(topic, None)

    async def durability(self, topic: str) -> Sequence[Durability]:
        """Returns the server's settings; they are the same for all topics."""
        from brokers.redis_durability import durability

        self._calls.check_open()
        return await self._call(lambda: durability(self._link.client))

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        with self._link.errors():
            return await self._calls.run(work)

    async def _check_durability(self) -> None:
        wanted = {"appendonly": ("yes",), "appendfsync": ("always",), "maxmemory-policy": ("noeviction",)}
        try:
            settings = {name: (await self._link.client.config_get(name)).get(name, "") for name in wanted}
        except exceptions.RedisError:
            log.info("redis_durability_unknown", url=self._link.lifeline.url, reason="no permission for CONFIG GET")
            return
        weak = {name: value for name, value in settings.items() if _text(value) not in wanted[name]}
        if weak:
            log.warning("redis_durability_weak", url=self._link.lifeline.url, settings=weak)


def _words(exc: BaseException) -> str:
    """Returns what the server said. Of a pipeline the driver names the command as well, with a piece of the message."""
    _, is_pipeline, text = str(exc).rpartition("caused error: ")
    return text.strip("(),'") if is_pipeline else text


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _database(path: str) -> int:
    if path and not path.isdecimal():
        raise ValueError(f"{path!r} is no number of a Redis database")
    return int(path or 0)


def from_url(url: str) -> RedisBroker:
    """Returns a broker for ``redis://`` or ``rediss://``."""
    parts = parse_url(url, 6379, OPTIONS)
    if len(parts.hosts) > 1:
        raise ValueError("it names several hosts; clusters and sentinels of Redis are not supported")
    return RedisBroker(parts)
