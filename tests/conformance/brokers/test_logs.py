"""Logs by position: exactly what follows, in order."""

import asyncio
from typing import Any

import pytest

from brokers.base import END, START, Broker, Message, Position
from brokers.errors import BrokerClosedError, PositionTrimmedError

Rig = Any  # the fixture's class lives in conftest, which cannot be imported


async def test_reading_from_the_start_gives_all_in_order(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    assert rig.bodies(await rig.read(broker, topic, 3)) == ["a", "b", "c"]


async def test_a_position_gives_exactly_what_follows_it(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b", "c", "d"))
    entries = await rig.read(broker, topic, 4)
    for number, entry in enumerate(entries[:-1]):
        following = await rig.read(broker, topic, 3 - number, entry.position)
        assert rig.bodies(following) == ["a", "b", "c", "d"][number + 1 :]
    assert await broker.read(topic, entries[-1].position, 10, 0.05) == []


async def test_a_position_is_good_for_another_connection(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b"))
    position = (await rig.read(broker, topic, 1))[0].position
    other = await rig.open()
    assert rig.bodies(await rig.read(other, topic, 1, position)) == ["b"]


async def test_read_gives_no_more_than_asked_for(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    assert rig.bodies(await broker.read(topic, START, 1, 20.0)) == ["a"]


async def test_a_topic_that_does_not_exist_reads_as_empty(broker: Broker, topic: str) -> None:
    assert await broker.read(topic, START, 10, 0.0) == []
    assert await broker.read(topic, END, 10, 0.05) == []


async def test_a_waiting_read_returns_as_soon_as_there_is_a_message(rig: Rig, broker: Broker, topic: str) -> None:
    waiting = asyncio.create_task(rig.read(broker, topic, 1))
    await asyncio.sleep(0)
    await broker.publish(rig.messages(topic, "a"))
    assert rig.bodies(await waiting) == ["a"]


async def test_the_end_lies_behind_everything_published_before(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b"))
    end = await broker.end(topic)
    await broker.publish(rig.messages(topic, "c", "d"))
    assert rig.bodies(await rig.read(broker, topic, 2, end)) == ["c", "d"]


async def test_the_end_of_an_empty_log_misses_nothing(rig: Rig, broker: Broker, topic: str) -> None:
    end = await broker.end(topic)
    await broker.publish(rig.messages(topic, "a"))
    assert rig.bodies(await rig.read(broker, topic, 1, end)) == ["a"]


async def test_the_end_is_good_after_everything_was_trimmed(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a"))
    await broker.trim(topic, (await rig.read(broker, topic, 1))[0].position)
    end = await broker.end(topic)
    await broker.publish(rig.messages(topic, "b"))
    assert rig.bodies(await rig.read(broker, topic, 1, end)) == ["b"]


async def test_trimming_keeps_everything_behind_the_position(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    entries = await rig.read(broker, topic, 3)
    await broker.trim(topic, entries[1].position)
    await broker.trim(topic, entries[1].position)
    assert rig.bodies(await rig.read(broker, topic, 1, entries[1].position)) == ["c"]


async def test_reading_behind_a_trimmed_position_says_so(rig: Rig, broker: Broker, topic: str) -> None:
    # Large enough that no backend keeps it for the sake of whole blocks.
    await broker.publish([Message(topic, "k", b"x" * 10_000) for _ in range(500)])
    entries = await rig.read(broker, topic, 500)
    await broker.trim(topic, entries[-1].position)
    with pytest.raises(PositionTrimmedError):
        await broker.read(topic, entries[0].position, 10, 0.05)


@pytest.mark.parametrize(
    "foreign",
    [b"1700000000000-0", b"5000000", b"5000000:0", b"12345678\0\0\0\0\0\0\0\xff"],
    ids=("redis", "kafka", "pulsar", "memory"),
)
async def test_a_position_of_another_broker_is_none(rig: Rig, broker: Broker, topic: str, foreign: bytes) -> None:
    await broker.publish(rig.messages(topic, "a", "b"))
    with pytest.raises(PositionTrimmedError):
        await broker.read(topic, Position(foreign), 10, 0.05)
    await broker.trim(topic, Position(foreign))
    assert rig.bodies(await rig.read(broker, topic, 2)) == ["a", "b"]


async def test_a_log_reads_on_after_everything_was_trimmed(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b"))
    last = (await rig.read(broker, topic, 2))[-1].position
    await broker.trim(topic, last)
    await broker.publish(rig.messages(topic, "c"))
    assert rig.bodies(await rig.read(broker, topic, 1, last)) == ["c"]


async def test_trimming_a_topic_that_does_not_exist_is_harmless(rig: Rig, broker: Broker, topic: str) -> None:
    other = rig.topic()
    await broker.publish(rig.messages(other, "a"))
    await broker.trim(topic, (await rig.read(broker, other, 1))[0].position)


async def test_two_readers_of_one_log_do_not_disturb_each_other(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a", "b", "c"))
    first = (await rig.read(broker, topic, 2))[-1].position
    assert rig.bodies(await rig.read(broker, topic, 3)) == ["a", "b", "c"]
    assert rig.bodies(await rig.read(broker, topic, 1, first)) == ["c"]


async def test_waiting_readers_do_not_block_publishers(rig: Rig, broker: Broker) -> None:
    topics = [rig.topic() for _ in range(40)]
    readers = [asyncio.create_task(rig.read(broker, name, 1)) for name in topics]
    await asyncio.sleep(0)
    for name in topics:
        await broker.publish(rig.messages(name, name))
    assert [rig.bodies(entries) for entries in await asyncio.gather(*readers)] == [[name] for name in topics]


async def test_a_deleted_log_reads_as_a_new_one(rig: Rig, broker: Broker, topic: str) -> None:
    await broker.publish(rig.messages(topic, "a"))
    await broker.delete_topic(topic)
    await broker.delete_topic(topic)
    assert await broker.read(topic, START, 10, 0.05) == []
    await broker.publish(rig.messages(topic, "b"))
    assert rig.bodies(await rig.read(broker, topic, 1)) == ["b"]


async def test_topics_are_made_once_and_empty_and_found_by_the_beginning_of_their_names(
    rig: Rig, broker: Broker, topic: str
) -> None:
    made, other = [f"{topic}.made.a", f"{topic}.made.b"], f"{topic}.unmade"
    await broker.ensure_topics(made)
    await broker.publish([*rig.messages(made[0], "kept"), *rig.messages(other, "x")])

    another = await rig.open()
    await another.ensure_topics(made)

    assert sorted(await another.topics(f"{topic}.made.")) == made
    assert sorted(await another.topics(f"{topic}.")) == [*made, other]
    assert await another.topics(f"{topic[:-1]}?") == []
    assert await another.read(made[1], START, 10, 0.05) == []
    assert rig.bodies(await rig.read(another, made[0], 1)) == ["kept"]


async def test_a_deleted_topic_is_no_longer_found(broker: Broker, topic: str) -> None:
    await broker.ensure_topics([topic])
    if broker.capabilities.topics_are_dear:
        await broker.discard_topic(topic)
    else:
        await broker.delete_topic(topic)
    async with asyncio.timeout(40):
        while await broker.topics(topic):  # a server may hear of it a moment later
            pass


async def test_a_cancelled_read_loses_nothing(rig: Rig, broker: Broker, topic: str) -> None:
    position = await broker.end(topic)
    seen: list[str] = []
    for number in range(50):
        waiting = asyncio.create_task(broker.read(topic, position, 10, 20.0))
        publishing = asyncio.create_task(broker.publish(rig.messages(topic, f"m{number}")))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        waiting.cancel()
        outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
        await publishing
        if not isinstance(outcome, BaseException) and outcome:
            seen += rig.bodies(outcome)
            position = outcome[-1].position
    if len(seen) < 50:
        seen += rig.bodies(await rig.read(broker, topic, 50 - len(seen), position))
    assert seen == [f"m{number}" for number in range(50)]


async def test_closing_ends_a_pending_read(broker: Broker, topic: str) -> None:
    waiting = asyncio.create_task(broker.read(topic, START, 10, 60.0))
    await asyncio.sleep(0)
    await broker.close()
    with pytest.raises(BrokerClosedError):
        await asyncio.wait_for(waiting, 40)


async def test_the_inboxes_of_a_thousand_ants(rig: Rig, broker: Broker) -> None:
    shared = rig.topic()
    dear = broker.capabilities.topics_are_dear
    names = [shared if dear else f"{shared}.{number}" for number in range(1000)]
    await broker.publish([Message(name, f"ant{number}", f"{number}".encode()) for number, name in enumerate(names)])
    if dear:
        entries = await rig.read(broker, shared, 1000)
        assert sorted(int(entry.message.body) for entry in entries) == list(range(1000))
        return
    for number in (0, 499, 999):
        assert rig.bodies(await rig.read(broker, names[number], 1)) == [str(number)]
