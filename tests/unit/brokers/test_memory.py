"""What the memory broker holds, and for how long."""

import asyncio

import pytest

from brokers.appetite import MOUTHFUL_BYTES
from brokers.base import END, START, Message
from brokers.errors import PositionTrimmedError, UnknownBrokerError
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from brokers.memory_subscriptions import BROADCAST_BACKLOG
from brokers.registry import make_broker

LIMIT_BYTES = 1000
BODY = b"x" * 100


def messages(count: int) -> list[Message]:
    return [Message("t", "k", BODY) for _ in range(count)]


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer(LIMIT_BYTES)


@pytest.fixture
async def broker(server: MemoryServer) -> MemoryBroker:
    broker = MemoryBroker(server)
    await broker.open()
    return broker


def held(server: MemoryServer) -> int:
    topic = server.find("t")
    return topic.size_bytes if topic else 0


async def test_what_all_groups_acknowledged_is_let_go(server: MemoryServer, broker: MemoryBroker) -> None:
    groups = [await broker.subscribe(["t"], name, "c") for name in ("g1", "g2")]
    await broker.publish(messages(3))
    await groups[0].ack(await groups[0].receive(3, 40.0))
    assert held(server) == 300
    taken = await groups[1].receive(3, 40.0)
    await groups[1].ack(taken[1:])
    assert held(server) == 300
    await groups[1].ack(taken[:1])
    assert held(server) == 0


async def test_a_topic_that_is_only_listened_to_keeps_nothing(server: MemoryServer, broker: MemoryBroker) -> None:
    await broker.subscribe(["t"], None, "c")
    await broker.publish(messages(100))
    assert held(server) == 0


async def test_a_slow_listener_loses_the_oldest(broker: MemoryBroker) -> None:
    listener = await broker.subscribe(["t"], None, "c")
    await broker.publish([Message("t", "k", str(number).encode()) for number in range(BROADCAST_BACKLOG + 5)])
    taken = await listener.receive(2 * BROADCAST_BACKLOG, 40.0)
    assert len(taken) == BROADCAST_BACKLOG
    assert taken[0].message.body == b"5"


async def test_a_topic_that_nobody_asked_for_keeps_the_newest(server: MemoryServer, broker: MemoryBroker) -> None:
    for _ in range(100):
        await broker.publish(messages(1))
    assert 0 < held(server) <= LIMIT_BYTES + len(BODY)
    assert len(await broker.read("t", START, 1000, 0.0)) * len(BODY) == held(server)


async def test_publish_waits_for_a_slow_group(server: MemoryServer, broker: MemoryBroker) -> None:
    subscription = await broker.subscribe(["t"], "g", "c")
    await broker.publish(messages(11))
    waiting = asyncio.create_task(broker.publish(messages(1)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    await subscription.ack(await subscription.receive(11, 40.0))
    await asyncio.wait_for(waiting, 40)
    assert held(server) == 100


async def test_publish_waits_for_a_slow_reader_and_drops_what_it_passed(
    server: MemoryServer, broker: MemoryBroker
) -> None:
    position = await broker.end("t")
    await broker.publish(messages(11))
    waiting = asyncio.create_task(broker.publish(messages(1)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    entries = await broker.read("t", position, 11, 40.0)
    assert not waiting.done()
    assert len(await broker.read("t", entries[-1].position, 11, 40.0)) == 1
    await asyncio.wait_for(waiting, 40)
    assert held(server) <= LIMIT_BYTES
    with pytest.raises(PositionTrimmedError):
        await broker.read("t", entries[0].position, 11, 0.0)


async def test_a_log_keeps_what_its_reader_passed_below_the_limit(broker: MemoryBroker) -> None:
    await broker.publish(messages(5))
    entries = await broker.read("t", START, 5, 0.0)
    assert await broker.read("t", entries[-1].position, 5, 0.0) == []
    assert len(await broker.read("t", entries[0].position, 5, 0.0)) == 4


async def test_a_group_does_not_let_go_of_what_a_reader_by_position_may_want(broker: MemoryBroker) -> None:
    assert await broker.read("t", END, 1, 0.0) == []
    subscription = await broker.subscribe(["t"], "g", "c")
    await broker.publish(messages(3))
    await subscription.ack(await subscription.receive(3, 40.0))
    assert len(await broker.read("t", START, 5, 0.0)) == 3


async def test_positions_of_an_earlier_process_say_that_the_log_is_gone(broker: MemoryBroker) -> None:
    other = MemoryBroker(MemoryServer())
    await other.open()
    for each in (broker, other):
        await each.publish(messages(2))
    position = (await other.read("t", START, 1, 0.0))[0].position
    with pytest.raises(PositionTrimmedError):
        await broker.read("t", position, 1, 0.0)


async def test_brokers_of_one_name_share_their_topics() -> None:
    first, second, stranger = (make_broker(url) for url in ("memory://colony", "memory://colony", "memory://"))
    for each in (first, second, stranger):
        await each.open()
    await first.publish(messages(1))
    assert len(await second.read("t", START, 1, 0.0)) == 1
    assert await stranger.read("t", START, 1, 0.0) == []


@pytest.mark.parametrize("url", ["rabbit://host", "memory", "", "://", "nats://user:secret@host"])
def test_a_url_that_no_backend_knows_says_which_are_known(url: str) -> None:
    with pytest.raises(UnknownBrokerError, match=r"known are memory://") as caught:
        make_broker(url)
    assert "secret" not in str(caught.value)


async def test_one_receive_brings_no_more_than_a_mouthful_of_large_messages() -> None:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    subscription = await broker.subscribe(["t"], "g", "c")
    body = b"x" * 2**20
    await broker.publish([Message("t", "k", body) for _ in range(20)])

    first = await subscription.receive(256, 40.0)
    rest = await subscription.receive(256, 40.0)

    assert len(first) == MOUTHFUL_BYTES // len(body)
    assert [delivery.message_id for delivery in (*first, *rest)] == [str(number) for number in range(2 * len(first))]


async def test_messages_are_settled_once_their_group_has_acknowledged_all_of_them(broker: MemoryBroker) -> None:
    await broker.settle("t", "g")
    group = await broker.subscribe(["t"], "g", "c")
    await broker.publish(messages(3))
    taken = await group.receive(3, 40.0)
    settling = asyncio.create_task(broker.settle("t", "g"))
    await asyncio.sleep(0)
    await group.ack(taken[1:])
    await broker.publish(messages(1))
    await asyncio.sleep(0)
    assert not settling.done()
    await group.ack(taken[:1])
    await asyncio.wait_for(settling, 40)
