"""Publishing, broadcasting, and the life of a connection."""

import asyncio
from typing import Any

import pytest

from brokers.base import START, Broker, Message
from brokers.errors import BrokerClosedError, MessageTooLargeError

Rig = Any  # the fixture's class lives in conftest, which cannot be imported


async def test_a_message_arrives_as_it_was_sent(rig: Rig, broker: Broker, topic: str) -> None:
    sent = [
        Message(topic, "", b""),
        Message(topic, "ключ/κλειδί", bytes(range(256)), {"trace": "00-ab", "имя": "значение ✓"}),
    ]
    await broker.publish(sent)
    assert [entry.message for entry in await rig.read(broker, topic, 2)] == sent
    subscription = await broker.subscribe([topic], "g", "c")
    assert [item.message for item in await rig.receive(subscription, 2)] == sent


async def test_publishing_nothing_is_harmless(broker: Broker) -> None:
    await broker.publish([])


async def test_what_publish_returned_for_is_there_for_another_connection(rig: Rig, broker: Broker, topic: str) -> None:
    other = await rig.open()
    await broker.publish(rig.messages(topic, *(f"m{number}" for number in range(500))))
    assert len(await rig.read(other, topic, 500)) == 500


async def test_concurrent_publishers_lose_nothing(rig: Rig, broker: Broker, topic: str) -> None:
    await asyncio.gather(*(broker.publish(rig.messages(topic, f"m{number}")) for number in range(200)))
    assert sorted(rig.bodies(await rig.read(broker, topic, 200))) == sorted(f"m{number}" for number in range(200))


async def test_a_body_of_a_megabyte_arrives(rig: Rig, broker: Broker, topic: str) -> None:
    body = b"\x00\xff" * (512 * 1024)
    await broker.publish([Message(topic, "k", body)])
    assert (await rig.read(broker, topic, 1))[0].message.body == body


async def test_a_body_of_the_largest_size_arrives(rig: Rig, broker: Broker, topic: str) -> None:
    body = b"x" * broker.capabilities.max_message_bytes
    await broker.publish([Message(topic, "k", body)])
    assert (await rig.read(broker, topic, 1))[0].message.body == body


async def test_a_body_beyond_the_limit_is_refused_with_all_its_batch(rig: Rig, broker: Broker, topic: str) -> None:
    limit_bytes = broker.capabilities.max_message_bytes
    with pytest.raises(MessageTooLargeError, match=f"{limit_bytes + 1} bytes to {topic} exceeds the limit"):
        await broker.publish([Message(topic, "k", b"small"), Message(topic, "k", b"x" * (limit_bytes + 1))])
    assert await broker.read(topic, START, 10, 0.05) == []


async def test_a_broadcast_reaches_every_listener(rig: Rig, broker: Broker, topic: str) -> None:
    listeners = [await (await rig.open()).subscribe([topic], None, f"c{number}") for number in range(3)]
    await broker.publish(rig.messages(topic, "a", "b"))
    for listener in listeners:
        assert rig.bodies(await rig.receive(listener, 2)) == ["a", "b"]


async def test_a_broadcast_gives_only_what_is_published_from_now_on(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "before"))
    listener = await broker.subscribe([topic], None, "c")
    await broker.publish(rig.messages(topic, "after"))
    assert rig.bodies(await rig.receive(listener, 1)) == ["after"]


async def test_a_broadcast_does_not_come_back(rig: Rig, broker: Broker, topic: str) -> None:
    listener = await broker.subscribe([topic], None, "c")
    await broker.publish(rig.messages(topic, "a"))
    taken = await rig.receive(listener, 1)
    await listener.nack(taken)
    await listener.ack(taken)
    await broker.publish(rig.messages(topic, "b"))
    assert rig.bodies(await rig.receive(listener, 1)) == ["b"]


async def test_a_closed_listener_says_so(broker: Broker, topic: str) -> None:
    listener = await broker.subscribe([topic], None, "c")
    await listener.close()
    await listener.close()
    with pytest.raises(BrokerClosedError):
        await listener.receive(1, 0.0)


async def test_close_is_safe_twice_and_before_open(rig: Rig) -> None:
    broker = rig.backend.connect()
    await broker.close()
    await broker.open()
    await broker.close()
    await broker.close()


async def test_a_closed_broker_says_so(rig: Rig, topic: str) -> None:
    broker = rig.backend.connect()
    with pytest.raises(BrokerClosedError):
        await broker.publish(rig.messages(topic, "a"))
    await broker.open()
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.close()
    for call in (
        broker.publish(rig.messages(topic, "a")),
        broker.read(topic, START, 1, 0.0),
        broker.subscribe([topic], "g", "c"),
        broker.end(topic),
        broker.depth(topic, "g"),
        broker.delete_topic(topic),
        subscription.receive(1, 0.0),
    ):
        with pytest.raises(BrokerClosedError):
            await call


async def test_closing_the_broker_gives_back_what_its_consumers_held(rig: Rig, broker: Broker, topic: str) -> None:
    first = await rig.open()
    subscription = await first.subscribe([topic], "g", "c1")
    await broker.publish(rig.messages(topic, "a"))
    await rig.receive(subscription, 1)
    await first.close()
    second = await broker.subscribe([topic], "g", "c2")
    assert rig.bodies(await rig.receive(second, 1)) == ["a"]


async def test_a_closed_broker_can_be_opened_again(rig: Rig, topic: str) -> None:
    broker = await rig.open()
    await broker.close()
    await broker.open()
    await broker.publish(rig.messages(topic, "a"))
    assert rig.bodies(await rig.read(broker, topic, 1)) == ["a"]
