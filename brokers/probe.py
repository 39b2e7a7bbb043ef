"""Proves a broker end to end through the contract, on topics of its own that it removes, and measures round trips.

Each step uses what a colony relies on; the first that fails ends the probe. Nothing but throw-away topics is touched.
"""

import asyncio
import hashlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from brokers.base import (
    DEAD_SUFFIX,
    MAX_REJECTIONS,
    REASON_HEADER,
    START,
    Broker,
    Delivery,
    Durability,
    Edge,
    Entry,
    Message,
    Position,
    Subscription,
)
from brokers.errors import BrokerError, MessageTooLargeError

#: How long a server may take to answer the first time, and how long one step may take, in seconds.
OPEN_S: Final = 5.0
STEP_S: Final = 30.0
#: Every topic and group of a probe begins so, as those of a colony do (grants fit both), and goes on at random.
PREFIX: Final = "formicary.check"

_ROUND_TRIPS: Final = 100
_ROUND_TRIP_BYTES: Final = 300
_BATCH: Final = 120
_LANES: Final = 3
_LARGE_BYTES: Final = 1024 * 1024
_REASON: Final = "rejected by the probe"


class ProbeFailedError(Exception):
    """The server did something else than the contract says."""


class Step(NamedTuple):
    """One thing that was proved, and how long that took."""

    name: str
    claim: str
    duration_s: float


class Times(NamedTuple):
    """A distribution of durations, in seconds."""

    sample_count: int
    p50_s: float
    p99_s: float


@dataclass(slots=True)
class Findings:
    """What a probe found, also where it failed half-way: then ``error`` says what went wrong, in one sentence."""

    steps: list[Step] = field(default_factory=list)
    publish: Times | None = None
    round_trip: Times | None = None
    durability: Sequence[Durability] = ()
    error: str | None = None
    #: Throw-away topics that could not be removed.
    left_behind: list[str] = field(default_factory=list)


async def probe(broker: Broker, note: Callable[[Step], None]) -> Findings:
    """Proves a broker that is not yet open; opens and closes it. ``note`` hears of each step that succeeded."""
    run = _Probe(broker, note)
    try:
        await run.prove()
    except (BrokerError, ProbeFailedError) as exc:
        run.findings.error = " ".join(str(exc).split())
    except TimeoutError:
        hint = "" if run.findings.steps else "; is it one for this URL?"
        run.findings.error = f"{run.doing}: the server did not answer in time{hint}"
    finally:
        await asyncio.shield(run.clean_up())
    return run.findings


class _Probe:
    def __init__(self, broker: Broker, note: Callable[[Step], None]) -> None:
        self.findings = Findings()
        self.doing = ""
        self._broker = broker
        self._note = note
        self._name = f"{PREFIX}.{os.urandom(6).hex()}"
        self._topics: list[str] = []

    async def prove(self) -> None:
        """Goes through the steps in order."""
        await self._step("connect", "the server answers and takes the credentials", self._connect, OPEN_S)
        steps: tuple[tuple[str, str, Callable[[], Awaitable[None]]], ...] = (
            ("round trips", "what is published reaches a waiting reader", self._round_trips),
            ("order", "each key keeps its order", self._order),
            ("positions", "reading on from a position gives exactly what follows", self._positions),
            ("trim", "a log is trimmed, and goes on behind it", self._trim),
            ("large body", "1 MiB arrives unchanged; what is too large is refused", self._large),
            ("group", "what is acknowledged never comes back", self._group),
            ("redelivery", "what a consumer leaves unacknowledged goes to another", self._redelivery),
            ("dead letter", f"what is rejected {MAX_REJECTIONS} times is put aside with its reason", self._dead_letter),
            ("durability", "the server's settings were read", self._durability),
        )
        for name, claim, work in steps:
            await self._step(name, claim, work, STEP_S)

    async def clean_up(self) -> None:
        """Removes the topics and disconnects."""
        try:
            async with asyncio.timeout(STEP_S):
                for topic in self._topics:
                    await self._discard(topic)
                await self._broker.close()
        except TimeoutError:
            self.findings.left_behind = list(self._topics)

    async def _discard(self, topic: str) -> None:
        try:
            await self._broker.discard_topic(topic)
        except BrokerError:
            self.findings.left_behind.append(topic)

    async def _step(self, name: str, claim: str, work: Callable[[], Awaitable[None]], limit_s: float) -> None:
        self.doing, began = name, time.perf_counter()
        async with asyncio.timeout(limit_s):
            await work()
        step = Step(name, claim, time.perf_counter() - began)
        self.findings.steps.append(step)
        self._note(step)

    def _topic(self, purpose: str, has_dead: bool = False) -> str:
        topic = f"{self._name}.{purpose}"
        self._topics.extend([topic, topic + DEAD_SUFFIX] if has_dead else [topic])
        return topic

    async def _connect(self) -> None:
        try:
            await self._broker.open()
        except TimeoutError as exc:
            raise ProbeFailedError("the server did not answer in time; is it one for this URL?") from exc

    async def _round_trips(self) -> None:
        topic, body = self._topic("trips"), os.urandom(_ROUND_TRIP_BYTES)
        await self._broker.publish([Message(topic, "k", body)])
        place: Position | Edge = (await self._read(topic, 1))[-1].position
        sends, trips = [], []
        for _ in range(_ROUND_TRIPS):
            reading = asyncio.ensure_future(self._broker.read(topic, place, 1, STEP_S))
            await asyncio.sleep(0)
            began = time.perf_counter()
            try:
                await self._broker.publish([Message(topic, "k", body)])
                sends.append(time.perf_counter() - began)
                entries = await reading
            finally:
                reading.cancel()
            trips.append(time.perf_counter() - began)
            _expect(len(entries) == 1, "a waiting reader was woken without its message")
            place = entries[-1].position
        self.findings.publish, self.findings.round_trip = _times(sends), _times(trips)

    async def _order(self) -> None:
        topic = self._topic("order")
        numbers = range(_BATCH)
        await self._broker.publish([Message(topic, f"k{n % _LANES}", str(n).encode(), {"n": str(n)}) for n in numbers])
        messages = [entry.message for entry in await self._read(topic, _BATCH)]
        for lane in range(_LANES):
            found = [int(message.body) for message in messages if message.key == f"k{lane}"]
            _expect(found == list(range(lane, _BATCH, _LANES)), f"the order of a key was not kept: {found[:10]} …")
        headers = [message.headers.get("n") == message.body.decode() for message in messages]
        _expect(all(headers), "headers did not arrive with their messages")

    async def _positions(self) -> None:
        topic = f"{self._name}.order"
        entries = await self._read(topic, _BATCH)
        half = _BATCH // 2
        rest = await self._read(topic, _BATCH - half, entries[half - 1].position)
        _expect(rest == entries[half:], "reading on from a position gave something else than what follows it")
        end = await self._broker.end(topic)
        await self._broker.publish([Message(topic, "k", b"new")])
        new = await self._read(topic, 1, end)
        _expect([entry.message.body for entry in new] == [b"new"], "reading on from the end gave old messages")

    async def _trim(self) -> None:
        topic = f"{self._name}.order"
        entries = await self._read(topic, _BATCH + 1)
        keep_from = _BATCH - 10
        await self._broker.trim(topic, entries[keep_from].position)
        rest = await self._read(topic, len(entries) - keep_from - 1, entries[keep_from].position)
        _expect(rest == entries[keep_from + 1 :], "a trimmed log does not go on where it was trimmed")
        await self._broker.publish([Message(topic, "k", b"after")])
        last = await self._read(topic, 1, rest[-1].position)
        _expect(last[0].message.body == b"after", "a trimmed log takes no messages")

    async def _large(self) -> None:
        topic, body = self._topic("large"), os.urandom(_LARGE_BYTES)
        await self._broker.publish([Message(topic, "k", body)])
        (entry,) = await self._read(topic, 1)
        digests = [hashlib.sha256(data).digest() for data in (body, entry.message.body)]
        _expect(digests[0] == digests[1], "a body of 1 MiB was changed on its way")
        try:
            await self._broker.publish([Message(topic, "k", bytes(self._broker.capabilities.max_message_bytes + 1))])
        except MessageTooLargeError:
            return
        raise ProbeFailedError("a body above the limit was not refused")

    async def _group(self) -> None:
        topic = self._topic("group", has_dead=True)
        await self._broker.publish([Message(topic, "k", str(number).encode()) for number in range(10)])
        subscription = await self._broker.subscribe([topic], self._name, "first")
        try:
            deliveries = await _receive(subscription, 10)
            _expect(
                [int(item.message.body) for item in deliveries] == list(range(10)), "a group lost or mixed messages"
            )
            await subscription.ack(deliveries)
            await subscription.ack(deliveries)
            await self._until_empty(topic)
        finally:
            await subscription.close()

    async def _until_empty(self, topic: str) -> None:
        """Waits: some clients collect acknowledgements for a moment."""
        for pause_s in itertools.repeat(0.02):
            if not await self._broker.depth(topic, self._name):
                return
            await asyncio.sleep(pause_s)

    async def _redelivery(self) -> None:
        topic = f"{self._name}.group"
        await self._broker.publish([Message(topic, "k", b"held")])
        first = await self._broker.subscribe([topic], self._name, "first")
        try:
            await _receive(first, 1)
        finally:
            await first.close()
        second = await self._broker.subscribe([topic], self._name, "second")
        try:
            (delivery,) = await _receive(second, 1)
            _expect(delivery.message.body == b"held", "an acknowledged message came back")
            await second.ack([delivery])
        finally:
            await second.close()

    async def _dead_letter(self) -> None:
        topic = f"{self._name}.group"
        await self._broker.publish([Message(topic, "k", b"bad")])
        subscription = await self._broker.subscribe([topic], self._name, "third")
        try:
            for _ in range(MAX_REJECTIONS):
                await subscription.nack(await _receive(subscription, 1), 0.0, _REASON)
            (entry,) = await self._read(topic + DEAD_SUFFIX, 1)
        finally:
            await subscription.close()
        found = (entry.message.body, entry.message.headers.get(REASON_HEADER))
        _expect(found == (b"bad", _REASON), "a dead letter came without its body or reason")

    async def _durability(self) -> None:
        self.findings.durability = await self._broker.durability(f"{self._name}.order")

    async def _read(self, topic: str, count: int, after: Position | Edge = START) -> list[Entry]:
        """Returns exactly ``count`` entries behind ``after``; the step's time limit ends the wait for them."""
        entries: list[Entry] = []
        while len(entries) < count:
            place = entries[-1].position if entries else after
            entries += await self._broker.read(topic, place, count - len(entries), STEP_S)
        return entries


async def _receive(subscription: Subscription, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await subscription.receive(count - len(taken), STEP_S)
    return taken


def _expect(is_true: bool, otherwise: str) -> None:
    if not is_true:
        raise ProbeFailedError(otherwise)


def _times(durations_s: list[float]) -> Times:
    ordered = sorted(durations_s)
    last = len(ordered) - 1
    return Times(len(ordered), ordered[last // 2], ordered[round(last * 0.99)])
