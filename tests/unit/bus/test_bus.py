"""The bus: packing, poison, and patience with a lost broker; over the memory broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import pytest

from brokers.base import END, REASON_HEADER, START, Message
from brokers.errors import BrokerUnavailableError, MessageTooLargeError
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.bus import EVENT_ID_HEADER, Bus, Outgoing
from formicary.clock import SystemClock
from formicary.events.codec import SCHEMA_VERSION, decode_pack
from formicary.events.tasks import BarrierReached

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FlakyBroker(MemoryBroker):
    """Loses its server for the first ``outages`` publishes, each time after the batch arrived."""

    def __init__(self, outages: int) -> None:
        super().__init__(MemoryServer())
        self.outages = outages
        self.batches = 0

    async def publish(self, messages: Sequence[Message]) -> None:
        self.batches += 1
        await super().publish(messages)
        if self.batches <= self.outages:
            raise BrokerUnavailableError("memory://", "gone")


class ImpatientClock(SystemClock):
    """Notes how long it should have slept."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.pauses_s.append(delay_s)
        await asyncio.sleep(0)


class Side(NamedTuple):
    broker: FlakyBroker
    bus: Bus
    clock: ImpatientClock


def barrier(number: int) -> BarrierReached:
    return BarrierReached(shard=1, epoch=1, number=number)


def poisoned(*events: object) -> bytes:
    return msgspec.msgpack.encode((SCHEMA_VERSION, "old@1", 5, AT, events))


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    broker, clock = FlakyBroker(0), ImpatientClock()
    await broker.open()
    yield Side(broker, Bus(broker, "q@1", clock), clock)
    await broker.close()


async def test_events_of_one_topic_and_key_share_a_message(side: Side) -> None:
    await side.bus.publish(
        [Outgoing("t", f"k{number % 2}", barrier(number)) for number in range(6)] + [Outgoing("u", "k0", barrier(9))]
    )
    assert side.broker.batches == 1
    packets = await side.bus.read("t", START, 10, 0.0)
    assert [packet.events for packet in packets] == [
        (barrier(0), barrier(2), barrier(4)),
        (barrier(1), barrier(3), barrier(5)),
    ]
    assert [packet.sender for packet in packets] == ["q@1", "q@1"]
    assert len(await side.bus.read("u", START, 10, 0.0)) == 1


async def test_publishing_nothing_asks_nothing_of_the_broker(side: Side) -> None:
    await side.bus.publish([])
    assert side.broker.batches == 0


async def test_reading_goes_on_behind_a_packet(side: Side) -> None:
    await side.bus.publish([Outgoing("t", "k", barrier(1))])
    await side.bus.publish([Outgoing("t", "k", barrier(2))])
    first = (await side.bus.read("t", START, 1, 0.0))[0]
    assert [packet.events for packet in await side.bus.read("t", first.position, 10, 0.0)] == [(barrier(2),)]
    await side.bus.trim("t", first.position)
    end = await side.bus.end("t")
    await side.bus.publish([Outgoing("t", "k", barrier(3))])
    assert [packet.events for packet in await side.bus.read("t", end, 10, 0.0)] == [(barrier(3),)]


async def test_a_lost_broker_is_waited_out_with_the_same_ids(side: Side) -> None:
    side.broker.outages = 8
    await side.bus.publish([Outgoing("t", "k", barrier(1))])
    assert side.clock.pauses_s == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    packs = [decode_pack(entry.message.body) for entry in await side.broker.read("t", START, 100, 0.0)]
    assert {(pack.sender, pack.first_number) for pack in packs} == {("q@1", 1)}


async def test_waiting_for_a_lost_broker_can_be_cancelled(side: Side) -> None:
    side.broker.outages = 10**9
    publishing = asyncio.create_task(side.bus.publish([Outgoing("t", "k", barrier(1))]))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


async def test_an_event_too_large_for_the_broker_is_the_callers_affair(side: Side) -> None:
    with pytest.raises(MessageTooLargeError):
        await side.bus.publish_messages([Message("t", "k", b"x" * (side.bus.capabilities.max_message_bytes + 1))])


async def test_poison_in_a_log_is_dead_lettered_and_reported(side: Side) -> None:
    await side.broker.publish([Message("t", "k", poisoned(barrier(1), ["TaskVanished", "j", 1, 2], barrier(2)))])
    (packet,) = await side.bus.read("t", START, 10, 0.0)
    assert packet.events == (barrier(1), barrier(2))
    assert [poison.event_id for poison in packet.poison] == ["old@1-6"]
    (dead,) = await side.broker.read("t.dead", START, 10, 0.0)
    assert "TaskVanished" in dead.message.headers[REASON_HEADER]
    assert dead.message.headers[EVENT_ID_HEADER] == "old@1-6"
    assert decode_pack(dead.message.body).poison[0].event_id == "old@1-6"


async def test_reading_dead_letters_makes_no_more_of_them(side: Side) -> None:
    await side.broker.publish([Message("t.dead", "k", b"junk")])
    (packet,) = await side.bus.read("t.dead", START, 10, 0.0)
    assert packet.poison[0].raw == b"junk"
    assert await side.broker.read("t.dead.dead", START, 10, 0.0) == []


async def test_a_group_receives_acknowledges_and_rejects(side: Side) -> None:
    subscription = await side.bus.subscribe(["t"], "g", "c")
    await side.bus.publish([Outgoing("t", "k", barrier(1))])
    taken = await subscription.receive(10, 40.0)
    await subscription.nack(taken, reason="busy")
    again = await subscription.receive(10, 40.0)
    assert [item.events for item in again] == [(barrier(1),)]
    assert again[0].delivery.rejections == 1
    assert await side.bus.depth("t", "g") == 1
    await subscription.ack(again)
    assert await side.bus.depth("t", "g") == 0
    await subscription.close()


async def test_poison_of_a_group_is_dead_lettered_before_the_reader_sees_it(side: Side) -> None:
    subscription = await side.bus.subscribe(["t"], "g", "c")
    await side.broker.publish([Message("t", "k", b"junk")])
    (received,) = await subscription.receive(10, 40.0)
    assert received.events == ()
    assert received.poison[0].raw == b"junk"
    assert len(await side.broker.read("t.dead", START, 10, 0.0)) == 1


async def test_a_receive_cancelled_while_it_buries_poison_loses_nothing(side: Side) -> None:
    subscription = await side.bus.subscribe(["t"], "g", "c")
    await side.broker.publish([Message("t", "k", poisoned(barrier(1), 42))])
    side.broker.outages = 10**9
    receiving = asyncio.create_task(subscription.receive(10, 40.0))
    for _ in range(5):
        await asyncio.sleep(0)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    side.broker.outages = 0
    (received,) = await subscription.receive(10, 40.0)
    assert received.events == (barrier(1),)


async def test_a_broadcast_reaches_every_listener_and_buries_nothing(side: Side) -> None:
    listeners = [await side.bus.broadcast(["t"]) for _ in range(2)]
    await side.bus.publish([Outgoing("t", "k", barrier(1))])
    await side.broker.publish([Message("t", "k", b"junk")])
    for listener in listeners:
        good, bad = await listener.receive(10, 40.0)
        assert good.events == (barrier(1),)
        assert bad.poison
    assert await side.broker.read("t.dead", START, 10, 0.0) == []


async def test_a_deleted_topic_is_empty(side: Side) -> None:
    await side.bus.publish([Outgoing("t", "k", barrier(1))])
    await side.bus.delete_topic("t")
    assert await side.bus.read("t", START, 10, 0.0) == []
    assert await side.bus.read("t", END, 10, 0.0) == []
