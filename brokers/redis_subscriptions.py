"""Consumers on Redis: members of a group (XREADGROUP) and listeners (XREAD).

Rules of a member:

- What it fetched is in the group's pending list under its own, unique name. Its *keeper* renews that a third of
  ``claim_after_s`` apart; entries that nobody renewed for ``claim_after_s`` are claimed by any other member.
- Closing makes its entries claimable at once, rejected ones when their delay is over.
- Rejections are counted in a hash beside the stream, not by Redis' delivery counter, which also counts lost consumers.
- Keepers also drop what all groups have acknowledged, and the names of consumers that are long gone.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from redis import exceptions

from brokers.appetite import Appetite
from brokers.base import DEAD_SUFFIX, REASON_HEADER, Delivery, Subscription
from brokers.calls import end_task
from brokers.errors import BrokerError, BrokerUnavailableError
from brokers.holding import HoldingSubscription, Token, is_last_chance
from brokers.pulling import PullingSubscription
from brokers.redis import SLICE_S, Link, decode, encode

log = structlog.get_logger(__name__)

#: Longest time between two looks for entries that others left behind, in seconds.
CLAIM_EVERY_S: Final = 1.0
#: A topic that is only listened to keeps this much, in seconds.
BROADCAST_KEPT_S: Final = 600.0
#: A consumer without entries that did not ask for any for so long is forgotten.
_FORGOTTEN_AFTER_MS: Final = 600_000
_PAGE: Final = 1000

_FORGET: Final = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for i = 1, #consumer, 2 do facts[consumer[i]] = consumer[i + 1] end
  if facts['pending'] == 0 and facts['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts['name'])
  end
end
"""

_MAKE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XGROUP', 'CREATE', KEYS[1], 'formicary-made', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'formicary-made')
end
"""


class Member(HoldingSubscription):
    """A consumer of a group."""

    def __init__(
        self, link: Link, topics: Sequence[str], group: str, consumer: str, left: Callable[[Subscription], None]
    ) -> None:
        super().__init__()
        self._link = link
        self._topics = {link.key(topic).encode(): topic for topic in topics}
        self._group = group
        self._name = f"{consumer}-{os.urandom(4).hex()}"
        self._left = left
        self._next_claim_at = 0.0
        self._cursors: dict[str, bytes] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._appetite = Appetite()

    async def start(self) -> None:
        """Makes the group where there is none."""
        for topic in self._topics.values():
            await self._make_group(topic)
        self._keeper = asyncio.create_task(self._keep())

    async def _make_group(self, topic: str) -> None:
        try:
            await self._link.client.xgroup_create(self._link.key(topic), self._group, "0", mkstream=True)
        except exceptions.ResponseError as exc:
            if "BUSYGROUP" not in str(exc):
                raise

    async def _pull(self, max_count: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        max_count = self._appetite.count(max_count)
        with self._link.errors():
            try:
                if now >= self._next_claim_at:
                    self._next_claim_at = now + min(CLAIM_EVERY_S, self._link.claim_after_s / 3)
                    claimed = [item for topic in self._topics.values() for item in await self._claim(topic, max_count)]
                    if claimed:
                        self._next_claim_at = now
                        return self._tasted(claimed)
                return self._tasted(await self._read_new(max_count, self._next_claim_at - now))
            except exceptions.ResponseError as exc:
                if not str(exc).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                for topic in self._topics.values():  # a topic was deleted underneath
                    await self._make_group(topic)
                return []

    def _tasted(self, deliveries: list[Delivery]) -> list[Delivery]:
        if deliveries:
            self._appetite.taste([delivery.message for delivery in deliveries])
        return deliveries

    async def _read_new(self, max_count: int, wait_s: float) -> list[Delivery]:
        streams: dict[Any, Any] = dict.fromkeys(self._topics, ">")
        block = max(1, int(min(wait_s, SLICE_S) * 1000))
        found = await self._link.client.xreadgroup(self._group, self._name, streams, count=max_count, block=block)
        return [
            self._deliver(self._topics[key], entry, fields, 0)
            for key, items in found
            for entry, fields in items
            if fields
        ]

    async def _claim(self, topic: str, max_count: int) -> list[Delivery]:
        key, idle_ms = self._link.key(topic), int(self._link.claim_after_s * 1000)
        cursor = self._cursors.get(topic, b"0-0")
        answer = await self._link.client.xautoclaim(key, self._group, self._name, idle_ms, cursor, max_count)
        self._cursors[topic] = answer[0]
        found = [(entry, fields) for entry, fields in answer[1] if fields and (topic, entry) not in self._owned]
        if not found:
            return []
        counts = await self._link.client.hmget(self._counts(topic), [entry for entry, _ in found])
        return [
            self._deliver(topic, entry, fields, int(count or 0))
            for (entry, fields), count in zip(found, counts, strict=True)
        ]

    def _deliver(self, topic: str, entry: bytes, fields: dict[bytes, bytes], rejections: int) -> Delivery:
        return self._own(topic, entry, decode(topic, fields), entry.decode(), rejections)

    async def _finish(self, deliveries: Sequence[Delivery]) -> None:
        pipeline = self._link.client.pipeline(transaction=False)
        for topic, entries in _by_topic(delivery.token for delivery in deliveries).items():
            pipeline.xack(self._link.key(topic), self._group, *entries)
        for topic, entries in _by_topic(item.token for item in deliveries if item.rejections).items():
            pipeline.hdel(self._counts(topic), *entries)
        with self._link.errors():
            await pipeline.execute()

    async def _reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        # Counts are set, not raised, and a dead letter moves in one transaction: repeating does no harm.
        pipeline = self._link.client.pipeline(transaction=True)
        for delivery in deliveries:
            token: Token = delivery.token
            if not is_last_chance(delivery):
                pipeline.hset(self._counts(token.topic), token.entry.decode(), str(delivery.rejections + 1))
                continue
            headers = {**delivery.message.headers, REASON_HEADER: reason}
            dead = delivery.message._replace(topic=token.topic + DEAD_SUFFIX, headers=headers)
            pipeline.xadd(self._link.key(dead.topic), encode(dead), minid=self._link.oldest(), approximate=True)
            pipeline.xack(self._link.key(token.topic), self._group, token.entry)
            pipeline.hdel(self._counts(token.topic), token.entry.decode())
        with self._link.errors():
            await pipeline.execute()

    async def close(self) -> None:
        """Leaves; what is pending can be claimed at once."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._left(self)
        await self._stop_fetching()
        await end_task(self._keeper)
        try:
            with self._link.errors():
                await self._release()
        except BrokerError as exc:
            log.info("redis_entries_left_to_time", group=self._group, reason=str(exc))

    async def _release(self) -> None:
        now, idle_ms = asyncio.get_running_loop().time(), int(self._link.claim_after_s * 1000)
        waits_ms = {
            (item.token.topic, item.token.entry): int((due - now) * 1000)
            for due, _, item in self._delayed
            if self._is_current(item)
        }
        for topic in self._topics.values():
            by_idle: defaultdict[int, list[bytes]] = defaultdict(list)
            for entry in await self._pending(topic):
                by_idle[max(0, idle_ms - waits_ms.get((topic, entry), 0))].append(entry)
            for idle, entries in by_idle.items():
                await self._reset_idle(topic, entries, idle)

    async def _reset_idle(self, topic: str, entries: list[bytes], idle_ms: int) -> None:
        key = self._link.key(topic)
        ids: list[Any] = list(entries)
        await self._link.client.xclaim(key, self._group, self._name, 0, ids, idle=idle_ms, justid=True)

    async def _pending(self, topic: str) -> list[bytes]:
        """Returns the entries that are pending under this name."""
        key, entries, start = self._link.key(topic), [], "-"
        while True:
            try:
                page = await self._link.client.xpending_range(key, self._group, start, "+", _PAGE, self._name)
            except exceptions.ResponseError as exc:
                if str(exc).startswith("NOGROUP"):
                    return []
                raise
            entries += [item["message_id"] for item in page]
            if len(page) < _PAGE:
                return entries
            start = f"({entries[-1].decode()}"

    async def _keep(self) -> None:
        while not self._closed.is_set():
            await asyncio.sleep(self._link.claim_after_s / 3)
            for topic in self._topics.values():
                try:
                    with self._link.errors():
                        await self._look_after(topic)
                except BrokerUnavailableError:
                    break
                except BrokerError as exc:
                    log.warning("redis_upkeep_failed", topic=topic, group=self._group, reason=str(exc))

    async def _look_after(self, topic: str) -> None:
        await self._renew(topic)
        await drop_acknowledged(self._link, topic)
        if await self._link.client.exists(self._link.key(topic)):
            await self._link.client.eval(_FORGET, 1, self._link.key(topic), self._group, str(_FORGOTTEN_AFTER_MS))

    async def _renew(self, topic: str) -> None:
        # What is fetched while the server answers is not in its answer, and not in this.
        before = [(key, serial) for key, serial in self._owned.items() if key[0] == topic]
        if not before:
            return
        mine = set(await self._pending(topic))
        lost = {key for key, serial in before if key[1] not in mine and self._owned.get(key) == serial}
        if lost:  # another member claimed them while this one stood still
            self._disown_where(lambda *key: key in lost)
        held = [entry for entry in mine if (topic, entry) in self._owned]
        for start in range(0, len(held), _PAGE):
            await self._reset_idle(topic, held[start : start + _PAGE], 0)

    def _counts(self, topic: str) -> str:
        return counts_key(self._link, topic, self._group)


class Listener(PullingSubscription):
    """A broadcast: reads on from the present end of each topic."""

    def __init__(self, link: Link, topics: Sequence[str], left: Callable[[Subscription], None]) -> None:
        super().__init__()
        self._link = link
        self._topics = {link.key(topic).encode(): topic for topic in topics}
        self._places: dict[Any, Any] = {}
        self._left = left
        self._next_drop_at = 0.0
        self._appetite = Appetite()

    async def start(self) -> None:
        """Fixes the place from which on it listens."""
        for key in self._topics:
            try:
                self._places[key] = (await self._link.client.xinfo_stream(key))["last-generated-id"]
            except exceptions.ResponseError as exc:
                if "no such key" not in str(exc):
                    raise
                self._places[key] = b"0-0"

    async def _pull(self, max_count: int) -> list[Delivery]:
        with self._link.errors():
            await self._drop_old()
            count = self._appetite.count(max_count)
            found = await self._link.client.xread(self._places, count=count, block=int(SLICE_S * 1000))
        deliveries: list[Delivery] = []
        for key, items in found:
            self._places[key] = items[-1][0]
            deliveries += [Delivery(decode(self._topics[key], fields), entry.decode()) for entry, fields in items]
        if deliveries:
            self._appetite.taste([delivery.message for delivery in deliveries])
        return deliveries

    async def _drop_old(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_drop_at:
            return
        self._next_drop_at = now + BROADCAST_KEPT_S / 10
        oldest = int((time.time() - BROADCAST_KEPT_S) * 1000)
        for key in self._topics:
            if await self._link.client.exists(key) and not await self._link.client.xinfo_groups(key):
                await self._link.client.xtrim(key, minid=oldest, approximate=True)

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
            await self._stop_fetching()


def counts_key(link: Link, topic: str, group: str) -> str:
    """Returns the key of the hash that counts rejections."""
    return f"{link.key(topic)}:{group}:rejections"


async def depth_of(link: Link, topic: str, group: str) -> int:
    """Returns what the group has yet to acknowledge."""
    key = link.key(topic)
    for facts in await _groups(link, topic):
        if facts["name"] == group.encode():
            lag = facts.get("lag")
            fresh = lag if lag is not None else await _count_after(link, key, facts["last-delivered-id"])
            return int(facts["pending"]) + int(fresh)
    return int(await link.client.xlen(key))


async def _count_after(link: Link, key: str, entry: bytes) -> int:
    # Before 7.0, and where entries were trimmed that a group never got, the server does not know.
    count = 0
    while page := await link.client.xrange(key, b"(" + entry, "+", count=_PAGE):
        count += len(page)
        entry = page[-1][0]
    return count


async def make(link: Link, topic: str) -> None:
    """Makes an empty stream where there is none: there is no command for that but to make a group."""
    await link.client.eval(_MAKE, 1, link.key(topic))


async def delete(link: Link, topic: str) -> None:
    """Deletes a stream and what belongs to its groups."""
    groups = [facts["name"].decode() for facts in await _groups(link, topic)]
    await link.client.delete(link.key(topic), *(counts_key(link, topic, group) for group in groups))


async def drop_acknowledged(link: Link, topic: str) -> None:
    """Trims a topic behind the oldest entry that some group still needs."""
    key, floors = link.key(topic), []
    for facts in await _groups(link, topic):
        if facts["pending"]:
            summary = await link.client.xpending(key, facts["name"])
            floors.append(summary["min"] or facts["last-delivered-id"])
        else:
            floors.append(facts["last-delivered-id"])
    if floors:
        floor = min(floors, key=_order)
        await link.client.xtrim(key, minid=floor.decode(), approximate=True)


async def _groups(link: Link, topic: str) -> list[dict[str, Any]]:
    try:
        return list(await link.client.xinfo_groups(link.key(topic)))
    except exceptions.ResponseError as exc:
        if "no such key" in str(exc):
            return []
        raise


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)


def _by_topic(tokens: Iterable[Token]) -> dict[str, list[bytes]]:
    topics: dict[str, list[bytes]] = {}
    for token in tokens:
        topics.setdefault(token.topic, []).append(token.entry)
    return topics
