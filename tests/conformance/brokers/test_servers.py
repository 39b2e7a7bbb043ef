"""What only a server can do to its clients: die, come back, refuse, be out of reach."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from brokers.base import Broker, Message
from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from brokers.registry import make_broker

Rig = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

#: Longest wait for a server that restarts, in seconds.
RESTART_S = 60.0


@pytest.fixture
async def healthy(server: Server) -> AsyncIterator[None]:
    """Leaves the server running, whatever the test did to it."""
    yield
    await asyncio.to_thread(server.start)


async def publish_until_taken(broker: Broker, messages: list[Message]) -> int:
    """Publishes as the bus does; returns how often it had to try again."""
    retries = 0
    async with asyncio.timeout(RESTART_S):
        while True:
            try:
                await broker.publish(messages)
            except BrokerUnavailableError:
                retries += 1
                await asyncio.sleep(0.05)
            else:
                return retries


async def test_what_publish_returned_for_survives_a_crash_of_the_server(
    server_rig: Rig, server: Server, healthy: None
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, *(f"m{number}" for number in range(200))))
    await asyncio.to_thread(server.stop, "--signal", "KILL")
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(RESTART_S):
        entries = await server_rig.read(broker, topic, 200)
    assert server_rig.bodies(entries) == [f"m{number}" for number in range(200)]


async def test_a_position_is_good_after_a_restart_of_the_server(server_rig: Rig, server: Server, healthy: None) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "a", "b", "c"))
    position = (await server_rig.read(broker, topic, 2))[-1].position
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    other = await server_rig.open()
    assert server_rig.bodies(await server_rig.read(other, topic, 1, position)) == ["c"]


async def test_a_restart_in_the_middle_of_publishing_and_receiving_loses_nothing(
    server_rig: Rig, server: Server, healthy: None
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    subscription = await broker.subscribe([topic], "g", "c")
    count, seen, done = 60, set[str](), asyncio.Event()

    async def consume() -> None:
        while len(seen) < count:
            deliveries = await subscription.receive(7, 1.0)
            seen.update(server_rig.bodies(deliveries))
            await subscription.ack(deliveries)
        done.set()

    async def restart() -> None:
        await asyncio.to_thread(server.stop, "--signal", "KILL")
        await asyncio.to_thread(server.start)

    consumer = asyncio.create_task(consume())
    restarting: asyncio.Task[None] | None = None
    for number in range(count):
        if number == count // 3:
            restarting = asyncio.create_task(restart())
        await publish_until_taken(broker, server_rig.messages(topic, f"m{number}"))
        await asyncio.sleep(0.01)
    async with asyncio.timeout(RESTART_S):
        await done.wait()
        await consumer
        assert restarting is not None
        await restarting
    assert seen == {f"m{number}" for number in range(count)}


async def test_losing_the_server_is_counted_and_so_is_finding_it(
    server_rig: Rig, server: Server, healthy: None
) -> None:
    def count(name: str) -> float:
        return sum(
            sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name == f"{name}_total"
        )

    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "a"))
    before = (count("formicary_broker_losses"), count("formicary_broker_reconnections"))
    waiting = asyncio.create_task(server_rig.read(broker, topic, 2))
    await asyncio.to_thread(server.stop, "--signal", "KILL")
    publishing = asyncio.create_task(publish_until_taken(broker, server_rig.messages(topic, "b")))
    await asyncio.to_thread(server.start)
    await publishing
    async with asyncio.timeout(RESTART_S):
        await waiting
    assert count("formicary_broker_losses") > before[0]
    assert count("formicary_broker_reconnections") > before[1]


async def test_a_server_that_is_down_is_unavailable_and_later_not(server: Server, healthy: None) -> None:
    await asyncio.to_thread(server.stop)
    broker = server.connect()
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        await asyncio.wait_for(broker.open(), RESTART_S)
    await asyncio.to_thread(server.start)
    await broker.open()
    await broker.close()


async def test_wrong_credentials_are_refused_and_not_shown(server: Server) -> None:
    broker = make_broker(server.url_with_wrong_password)
    with pytest.raises(BrokerRefusedError) as caught:
        await asyncio.wait_for(broker.open(), RESTART_S)
    await broker.close()
    assert "wrong-secret" not in str(caught.value)


async def test_messages_travel_over_tls(server: Server, server_rig: Rig) -> None:
    broker, topic = make_broker(server.urls[f"FORMICARY_TEST_{server.name.upper()}_TLS_URL"]), server_rig.topic()
    await broker.open()
    await broker.publish(server_rig.messages(topic, "a"))
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["a"]
    await broker.close()


async def test_a_certificate_nobody_vouches_for_is_not_trusted(server: Server) -> None:
    url = server.urls[f"FORMICARY_TEST_{server.name.upper()}_TLS_URL"]
    broker = make_broker("&".join(part for part in url.replace("?", "?&").split("&") if not part.startswith("ca=")))
    with pytest.raises((BrokerUnavailableError, BrokerRefusedError)):
        await asyncio.wait_for(broker.open(), RESTART_S)
    await broker.close()


_CONSUMER = """
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
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_consumer_held_goes_to_another(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CONSUMER, server.url, topic, stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    await broker.publish(server_rig.messages(topic, "a", "b", "c"))
    async with asyncio.timeout(RESTART_S):
        while (line := await victim.stdout.readline()) != b"taken\n":
            assert line, "the consumer ended by itself"
    victim.kill()
    await victim.wait()
    heir = await broker.subscribe([topic], "g", "heir")
    async with asyncio.timeout(RESTART_S):
        taken = [delivery for _ in range(3) for delivery in await server_rig.receive(heir, 1)]
    assert sorted(server_rig.bodies(taken)) == ["a", "b", "c"]
    assert [delivery.rejections for delivery in taken] == [0, 0, 0]


async def test_a_slow_consumer_that_lives_keeps_what_it_holds(server: Server, server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    slow = await broker.subscribe([topic], "g", "slow")
    await broker.publish(server_rig.messages(topic, "a"))
    held = await server_rig.receive(slow, 1)
    other = await (await server_rig.open()).subscribe([topic], "g", "other")
    assert await other.receive(1, 5.0) == []  # longer than a dead consumer is waited for
    await slow.ack(held)
    assert await broker.depth(topic, "g") == 0
