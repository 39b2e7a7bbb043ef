"""Consumer groups: at least once, order per key, redelivery, rejection, dead letters."""

import asyncio
from typing import Any

import pytest

from brokers.base import DEAD_SUFFIX, MAX_REJECTIONS, REASON_HEADER, START, Broker, Message
from brokers.errors import BrokerClosedError

Rig = Any  # the fixture's class lives in conftest, which cannot be imported


async def test_a_new_group_starts_at_the_oldest_message_held(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b"))
    subscription = await broker.subscribe([topic], "g", "c")
    assert rig.bodies(await rig.receive(subscription, 2)) == ["a", "b"]


async def test_each_group_gets_every_message(rig: Rig, broker: Broker, topic: str) -> None:
    first = await broker.subscribe([topic], "g1", "c")
    second = await broker.subscribe([topic], "g2", "c")
    await broker.publish(rig.messages(topic, "a", "b"))
    assert rig.bodies(await rig.receive(first, 2)) == ["a", "b"]
    assert rig.bodies(await rig.receive(second, 2)) == ["a", "b"]


async def test_members_of_a_group_share_its_messages(rig: Rig, broker: Broker, topic: str) -> None:
    members = [await broker.subscribe([topic], "g", f"c{number}") for number in range(2)]
    bodies = [f"m{number}" for number in range(40)]
    await broker.publish([Message(topic, body, body.encode()) for body in bodies])
    seen: list[str] = []

    async def consume(member: Any) -> None:
        while True:
            deliveries = await member.receive(5, 20.0)
            await member.ack(deliveries)
            seen.extend(rig.bodies(deliveries))
            if len(seen) >= len(bodies):
                done.set()

    done = asyncio.Event()
    consumers = [asyncio.create_task(consume(member)) for member in members]
    async with asyncio.timeout(40):
        await done.wait()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    assert sorted(seen) == sorted(bodies)


async def test_order_is_kept_per_key(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    for batch in range(5):
        await broker.publish(
            [Message(topic, f"k{number % 3}", f"{batch * 30 + number}".encode()) for number in range(30)]
        )
    deliveries = await rig.receive(subscription, 150)
    for key in ("k0", "k1", "k2"):
        numbers = [int(item.message.body) for item in deliveries if item.message.key == key]
        assert len(numbers) == 50
        assert numbers == sorted(numbers)


async def test_a_subscription_takes_several_topics(rig: Rig, broker: Broker) -> None:
    topics = [rig.topic(), rig.topic()]
    subscription = await broker.subscribe(topics, "g", "c")
    await broker.publish([Message(name, "k", name.encode()) for name in topics])
    assert sorted(rig.bodies(await rig.receive(subscription, 2))) == sorted(topics)


async def test_receive_gives_no_more_than_asked_for(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    assert len(await subscription.receive(2, 20.0)) <= 2


async def test_receive_is_empty_when_the_time_is_up(broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    assert await subscription.receive(10, 0.05) == []


async def test_receive_returns_as_soon_as_there_is_a_message(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    waiting = asyncio.create_task(subscription.receive(10, 60.0))
    await broker.publish(rig.messages(topic, "a"))
    async with asyncio.timeout(40):
        assert rig.bodies(await waiting) == ["a"]


async def test_what_a_closed_consumer_did_not_acknowledge_goes_to_another(rig: Rig, broker: Broker, topic: str) -> None:
    first = await broker.subscribe([topic], "g", "c1")
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    taken = await rig.receive(first, 3)
    await first.ack([item for item in taken if item.message.body == b"b"])
    await first.close()
    second = await broker.subscribe([topic], "g", "c2")
    assert sorted(rig.bodies(await rig.receive(second, 2))) == ["a", "c"]


async def test_a_waiting_member_gets_what_a_closing_one_held(rig: Rig, broker: Broker, topic: str) -> None:
    first = await broker.subscribe([topic], "g", "c1")
    await broker.publish(rig.messages(topic, "a"))
    await rig.receive(first, 1)
    second = await (await rig.open()).subscribe([topic], "g", "c2")
    waiting = asyncio.create_task(rig.receive(second, 1))
    await first.close()
    assert rig.bodies(await waiting) == ["a"]


async def test_what_was_acknowledged_never_comes_back(rig: Rig, broker: Broker, topic: str) -> None:
    first = await broker.subscribe([topic], "g", "c1")
    await broker.publish(rig.messages(topic, "a", "b"))
    await first.ack(await rig.receive(first, 2))
    await first.close()
    second = await broker.subscribe([topic], "g", "c2")
    await broker.publish(rig.messages(topic, "end"))
    assert rig.bodies(await rig.receive(second, 1)) == ["end"]


async def test_acknowledging_and_rejecting_twice_is_harmless(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a"))
    taken = await rig.receive(subscription, 1)
    await subscription.ack(taken)
    await subscription.ack(taken)
    await subscription.nack(taken)
    await subscription.nack(taken)
    await subscription.ack([])
    await broker.publish(rig.messages(topic, "end"))
    assert rig.bodies(await rig.receive(subscription, 1)) == ["end"]


async def test_rejecting_twice_counts_once(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a"))
    taken = await rig.receive(subscription, 1)
    await subscription.nack(taken)
    await subscription.nack(taken)
    again = await rig.receive(subscription, 1)
    assert again[0].rejections == 1


async def test_a_message_has_an_id_of_its_own_however_often_it_comes(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a", "b"))
    taken = await rig.receive(subscription, 2)
    ids = {delivery.message.body: delivery.message_id for delivery in taken}
    assert len(set(ids.values())) == 2
    await subscription.nack(taken[:1])
    await subscription.close()
    heir = await broker.subscribe([topic], "g", "heir")
    assert {delivery.message.body: delivery.message_id for delivery in await rig.receive(heir, 2)} == ids


async def test_what_was_rejected_comes_back_not_before_its_delay(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a"))
    taken = await rig.receive(subscription, 1)
    started_at = asyncio.get_running_loop().time()
    await subscription.nack(taken, delay_s=0.3, reason="not now")
    again = await rig.receive(subscription, 1)
    assert asyncio.get_running_loop().time() - started_at >= 0.29
    assert again[0].message == taken[0].message


async def test_a_rejected_message_does_not_hold_up_the_others(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a"))
    await subscription.nack(await rig.receive(subscription, 1), delay_s=60.0)
    await broker.publish(rig.messages(topic, "b"))
    assert rig.bodies(await rig.receive(subscription, 1)) == ["b"]


async def test_the_fifth_rejection_moves_a_message_to_the_dead_letters(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish([Message(topic, "key", b"bad", {"colour": "red"})])
    for rejection in range(MAX_REJECTIONS):
        taken = await rig.receive(subscription, 1)
        assert taken[0].rejections == rejection
        await subscription.nack(taken, reason=f"reason {rejection}")
    dead = (await rig.read(broker, topic + DEAD_SUFFIX, 1))[0].message
    assert (dead.key, dead.body) == ("key", b"bad")
    assert dead.headers == {"colour": "red", REASON_HEADER: "reason 4"}
    await broker.publish(rig.messages(topic, "end"))
    assert rig.bodies(await rig.receive(subscription, 1)) == ["end"]


async def test_a_message_whose_last_rejection_was_cancelled_comes_again(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "bad"))
    for _ in range(MAX_REJECTIONS - 1):
        await subscription.nack(await rig.receive(subscription, 1))
    last = asyncio.create_task(subscription.nack(await rig.receive(subscription, 1)))
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.wait({last})

    async with asyncio.timeout(20):
        while not await broker.read(topic + DEAD_SUFFIX, START, 1, 0.1):
            await subscription.nack(await subscription.receive(1, 0.1), reason="again")
    await broker.publish(rig.messages(topic, "end"))
    assert rig.bodies(await rig.receive(subscription, 1)) == ["end"]


async def test_losing_consumers_is_no_rejection(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a"))
    for number in range(MAX_REJECTIONS + 1):
        subscription = await broker.subscribe([topic], "g", f"c{number}")
        taken = await rig.receive(subscription, 1)
        assert taken[0].rejections == 0
        await subscription.close()


async def test_depth_counts_what_the_group_has_yet_to_acknowledge(rig: Rig, broker: Broker, topic: str) -> None:
    assert await broker.depth(topic, "g") == 0
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    taken = await rig.receive(subscription, 2)
    assert await broker.depth(topic, "g") == 3
    await subscription.ack(taken)
    assert await broker.depth(topic, "g") == 1


async def test_a_group_goes_on_after_its_topic_was_deleted(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(rig.messages(topic, "a"))
    taken = await rig.receive(subscription, 1)
    await broker.delete_topic(topic)
    await subscription.ack(taken)
    waiting = asyncio.create_task(rig.receive(subscription, 1))
    await broker.publish(rig.messages(topic, "b"))
    assert rig.bodies(await waiting) == ["b"]


async def test_a_cancelled_receive_loses_nothing(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    seen: list[str] = []
    for number in range(50):
        waiting = asyncio.create_task(subscription.receive(10, 20.0))
        publishing = asyncio.create_task(broker.publish(rig.messages(topic, f"m{number}")))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        waiting.cancel()
        outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
        await publishing
        if not isinstance(outcome, BaseException):
            seen += rig.bodies(outcome)
    seen += rig.bodies(await rig.receive(subscription, 50 - len(seen)))
    assert sorted(seen) == sorted(f"m{number}" for number in range(50))


async def test_closing_ends_a_pending_receive(rig: Rig, broker: Broker, topic: str) -> None:
    subscription = await broker.subscribe([topic], "g", "c")
    waiting = asyncio.create_task(subscription.receive(10, 60.0))
    await asyncio.sleep(0)
    await subscription.close()
    await subscription.close()
    with pytest.raises(BrokerClosedError):
        await asyncio.wait_for(waiting, 40)
    with pytest.raises(BrokerClosedError):
        await subscription.receive(1, 0.0)
