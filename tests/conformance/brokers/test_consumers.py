"""What consumers do to each other and to themselves: die, stand still, come and go, be slow."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from brokers.base import START, Broker, Message
from brokers.errors import BrokerUnavailableError, PositionTrimmedError
from brokers.registry import make_broker

Rig = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

PATIENCE_S = 60.0

#: Takes three messages, says so, and waits for a word; then acknowledges them and reports what else comes.
_VICTIM = """
import asyncio, sys
from brokers.registry import make_broker

async def main():
    broker = make_broker(sys.argv[1])
    await broker.open()
    subscription = await broker.subscribe([sys.argv[2]], "g", "victim")
    taken = []
    while len(taken) < 3:
        taken += await subscription.receive(3 - len(taken), 60)
    print("taken", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await subscription.ack(taken)
    print("acknowledged", flush=True)
    while True:
        deliveries = await subscription.receive(10, 60)
        for delivery in deliveries:
            print(delivery.message.body.decode(), flush=True)
        await subscription.ack(deliveries)

asyncio.run(main())
"""

#: Takes one message at a time of a large backlog; prints by how much the process grew, in MiB.
_SLOW = """
import asyncio, resource, sys
from brokers.registry import make_broker

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main():
    broker = make_broker(sys.argv[1])
    await broker.open()
    subscription = await broker.subscribe([sys.argv[2]], "g", "slow")
    before = peak_mib()
    for _ in range(5):
        await subscription.ack(await subscription.receive(256, 60))
        await asyncio.sleep(0.2)
    print(peak_mib() - before, flush=True)
    await broker.close()

asyncio.run(main())
"""


async def start(script: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Returns the next line that is no log line."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while line := await process.stdout.readline():
            if b"[" not in line:
                return line.decode().strip()
    raise AssertionError("the process ended by itself")


@pytest.fixture
async def victim(server: Server, server_rig: Rig) -> AsyncIterator[tuple[asyncio.subprocess.Process, Broker, str]]:
    """A consumer in a process of its own that holds a, b and c; d, e and f wait."""
    broker, topic = await server_rig.open(), server_rig.topic()
    process = await start(_VICTIM, server.url, topic)
    await broker.publish(server_rig.messages(topic, "a", "b", "c"))
    assert await line_of(process) == "taken"
    yield process, broker, topic
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_what_a_killed_consumer_held_goes_to_another_and_is_no_rejection(victim: Any, server_rig: Rig) -> None:
    process, broker, topic = victim
    process.kill()
    heir = await broker.subscribe([topic], "g", "heir")
    taken = await server_rig.receive(heir, 3)
    assert sorted(server_rig.bodies(taken)) == ["a", "b", "c"]
    assert [delivery.rejections for delivery in taken] == [0, 0, 0]


async def test_a_consumer_that_stood_still_gets_nothing_that_others_have_done(
    victim: Any, server: Server, server_rig: Rig
) -> None:
    process, broker, topic = victim
    process.send_signal(signal.SIGSTOP)
    heir = await (await server_rig.open()).subscribe([topic], "g", "heir")
    await broker.publish(server_rig.messages(topic, "d", "e", "f"))
    taken = await server_rig.receive(heir, 6)
    assert sorted(server_rig.bodies(taken)) == ["a", "b", "c", "d", "e", "f"]
    await heir.ack(taken)
    process.send_signal(signal.SIGCONT)
    process.stdin.write(b"go on\n")
    assert await line_of(process) == "acknowledged"
    await heir.close()
    await broker.publish(server_rig.messages(topic, "end"))
    again = []
    while (line := await line_of(process)) != "end":
        again.append(line)
    # Pulsar pushes: what was on its way when the consumer stood still arrives, once.
    assert sorted(again) == [] or (server.name == "pulsar" and set(again) <= {"d", "e", "f"} and len(again) <= 3)
    process.kill()
    await process.wait()
    last = await broker.subscribe([topic], "g", "last")
    await broker.publish(server_rig.messages(topic, "after"))
    remaining = set(server_rig.bodies(await server_rig.receive(last, 1)))
    assert remaining <= {"end", "after"}  # the kill may have come before the last acknowledgement


async def test_a_slow_consumer_that_lives_keeps_what_it_holds(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    slow = await broker.subscribe([topic], "g", "slow")
    await broker.publish(server_rig.messages(topic, "a"))
    held = await server_rig.receive(slow, 1)
    other = await (await server_rig.open()).subscribe([topic], "g", "other")
    assert await other.receive(1, 4.0) == []  # longer than a dead consumer is waited for
    await slow.ack(held)
    assert await broker.depth(topic, "g") == 0


async def test_a_slow_consumer_does_not_fill_its_memory(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    for _ in range(20):
        await broker.publish([Message(topic, "k", bytes(2**20)) for _ in range(10)])
    process = await start(_SLOW, server.url, topic)
    grown_mib = int(await line_of(process))
    await process.wait()
    assert grown_mib < 120  # of a backlog of 200
    await broker.delete_topic(topic)


async def test_consumers_that_come_and_go_lose_nothing_and_start_no_storm(server: Server, server_rig: Rig) -> None:
    broker, topic, total = await server_rig.open(), server_rig.topic(), 300
    seen: Counter[str] = Counter()
    rounds, batch = 3, 10

    async def stay() -> None:
        member = await broker.subscribe([topic], "g", "stays")
        while len(seen) < total:
            deliveries = await member.receive(batch, 1.0)
            seen.update(server_rig.bodies(deliveries))
            await member.ack(deliveries)

    async def come_and_go() -> None:
        for number in range(rounds):
            other = await server_rig.open()
            member = await other.subscribe([topic], "g", f"goes-{number}")
            deliveries = await member.receive(batch, 1.0)
            seen.update(server_rig.bodies(deliveries))
            await member.ack(deliveries[: batch // 2])
            await other.close()

    async def publish() -> None:
        for start_at in range(0, total, 20):
            await broker.publish(server_rig.messages(topic, *(f"{n}" for n in range(start_at, start_at + 20))))
            await asyncio.sleep(0.1)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        for work in (stay, come_and_go, publish):
            tasks.create_task(work())
    assert set(seen) == {f"{number}" for number in range(total)}
    # Twice comes only what somebody held when he left, or when another joined.
    assert sum(seen.values()) - total <= 2 * rounds * batch


async def test_rejections_are_counted_across_consumers(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    first = await broker.subscribe([topic], "g", "first")
    await broker.publish(server_rig.messages(topic, "a"))
    for _ in range(2):
        await first.nack(await server_rig.receive(first, 1))
    assert [item.rejections for item in await server_rig.receive(first, 1)] == [2]
    second = await broker.subscribe([topic], "g", "second")
    await first.close()
    assert [item.rejections for item in await server_rig.receive(second, 1)] == [2]


async def test_a_topic_deleted_underneath_is_used_on_and_gives_no_id_again(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "before"))
    before = await server_rig.receive(member, 1)
    await member.ack(before)
    await server_rig.read(broker, topic, 1)
    await server.delete_underneath(topic)
    async with asyncio.timeout(PATIENCE_S):
        await publish_again_and_again(broker, server_rig.messages(topic, "after"))
    after = await server_rig.receive(member, 1)
    assert "after" in server_rig.bodies(after)
    assert before[0].message_id != after[0].message_id
    # Kept like that of any other topic, for readers that come later: nobody but the backend sees to that.
    other = make_broker(server.url)
    await other.open()
    assert "after" in server_rig.bodies(await server_rig.read(other, topic, 1))
    await other.close()


async def test_deliveries_in_hand_take_nothing_along_of_what_follows_in_a_topic_made_anew(
    server: Server, server_rig: Rig
) -> None:
    broker, producer, topic = await server_rig.open(), await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, *(f"old{number}" for number in range(20))))
    held = await server_rig.receive(member, 20)
    await member.ack(held[:9] + held[12:15])
    await member.nack(held[15:], delay_s=0.1)
    await server.delete_underneath(topic)
    async with asyncio.timeout(PATIENCE_S):
        for number in range(0, 40, 4):
            fresh = server_rig.messages(topic, *(f"new{number + place}" for place in range(4)))
            await publish_again_and_again(producer, fresh)
            await member.ack(held[9 + number // 4 : 10 + number // 4])
        awaited = {f"new{number}" for number in range(40)}
        while awaited:
            taken = await member.receive(10, 1.0)
            awaited -= set(server_rig.bodies(taken))
            await member.ack(taken)
        while await broker.depth(topic, "g"):
            await member.ack(await member.receive(10, 1.0))


async def test_who_waits_for_a_log_that_is_deleted_underneath_hears_what_comes_after(
    server: Server, server_rig: Rig
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "a", "b", "c"))
    end = (await server_rig.read(broker, topic, 3))[-1].position
    listener = await broker.subscribe([topic], None, "c")
    waiting = asyncio.create_task(broker.read(topic, end, 10, PATIENCE_S))
    await server.delete_underneath(topic)
    async with asyncio.timeout(PATIENCE_S):
        await publish_again_and_again(broker, server_rig.messages(topic, "after"))
        try:
            heard = await waiting
        except PositionTrimmedError:  # on Kafka the new log counts from the beginning
            heard = await broker.read(topic, START, 10, PATIENCE_S)
        assert server_rig.bodies(heard) == ["after"]
        while not await listener.receive(1, 0.2):  # what came in between it may have missed
            await publish_again_and_again(broker, server_rig.messages(topic, "again"))


async def publish_again_and_again(broker: Broker, messages: list[Message]) -> None:
    while True:
        try:
            return await broker.publish(messages)
        except BrokerUnavailableError:
            await asyncio.sleep(0.1)
