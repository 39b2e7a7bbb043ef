"""What only a server can do to its clients: die, come back, be out of reach. One crash of each is lived through, and
looked at from all sides."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from brokers.base import START, Broker, Message
from brokers.errors import BrokerError, BrokerUnavailableError

Rig = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

pytestmark = pytest.mark.timeout(400)

#: Longest wait for a server that restarts, in seconds; that of Pulsar takes a minute on a very busy machine.
RESTART_S = 150.0
#: Longest time in which a server that is not there is given up, in seconds.
FAST_S = 40.0
CONFIRMED = [f"c{number}" for number in range(200)]
STREAM = [f"m{number}" for number in range(60)]


@dataclass
class Crash:
    """What was seen before, during and after a server's death."""

    confirmed_after: list[str] = field(default_factory=list)
    behind_position: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    error_when_down: Exception | None = None
    seconds_until_error: float = 0.0
    logged: list[str] = field(default_factory=list)
    losses: float = 0.0
    returns: float = 0.0


def count(name: str) -> float:
    """Returns the sum of a metric over all brokers."""
    return sum(
        sample.value for metric in REGISTRY.collect() for sample in metric.samples if sample.name == f"{name}_total"
    )


async def publish_until_taken(broker: Broker, messages: list[Message]) -> None:
    """Publishes as the bus does: again and again."""
    async with asyncio.timeout(RESTART_S):
        while True:
            try:
                return await broker.publish(messages)
            except BrokerUnavailableError:
                await asyncio.sleep(0.05)


async def try_to_open(server: Server, seen: Crash) -> None:
    broker, started_at = server.connect(), time.monotonic()
    try:
        await asyncio.wait_for(broker.open(), RESTART_S)
    except BrokerError as exc:
        seen.error_when_down = exc
    seen.seconds_until_error = time.monotonic() - started_at
    await broker.close()


async def live_through(server: Server, rig: Rig) -> Crash:
    seen, broker, topic, stream = Crash(), await rig.open(), rig.topic(), rig.topic()
    await broker.publish(rig.messages(topic, *CONFIRMED))
    position = (await rig.read(broker, topic, 100))[-1].position
    subscription = await broker.subscribe([stream], "g", "c")
    before = count("formicary_broker_losses"), count("formicary_broker_reconnections")

    async def receive() -> None:
        while not set(STREAM) <= set(seen.received):
            deliveries = await subscription.receive(7, 1.0)
            seen.received += rig.bodies(deliveries)
            await subscription.ack(deliveries)

    async def read() -> None:
        place: Any = START
        while STREAM[-1] not in seen.read:
            try:
                entries = await broker.read(stream, place, 7, 1.0)
            except BrokerUnavailableError:
                continue
            seen.read += rig.bodies(entries)
            place = entries[-1].position if entries else place

    async def crash() -> None:
        await asyncio.to_thread(server.stop, "--signal", "KILL")
        await try_to_open(server, seen)
        await asyncio.to_thread(server.start)

    async with asyncio.timeout(2 * RESTART_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(receive())
        tasks.create_task(read())
        for number, body in enumerate(STREAM):
            if number == len(STREAM) // 3:
                tasks.create_task(crash())
            await publish_until_taken(broker, rig.messages(stream, body))
            await asyncio.sleep(0.01)
    seen.confirmed_after = rig.bodies(await rig.read(broker, topic, len(CONFIRMED)))
    other = await rig.open()
    seen.behind_position = rig.bodies(await rig.read(other, topic, 100, position))
    seen.losses = count("formicary_broker_losses") - before[0]
    seen.returns = count("formicary_broker_reconnections") - before[1]
    return seen


@pytest.fixture(scope="module", params=["redis", "kafka", "pulsar"])
def crash(request: pytest.FixtureRequest, servers: Any, make_rig: Any) -> Crash:
    server = servers(request.param)

    async def lived() -> Crash:
        rig = make_rig(server)
        try:
            with capture_logs() as logs:
                seen = await live_through(server, rig)
        finally:
            await rig.close()
            await asyncio.to_thread(server.start)  # whatever happened
        seen.logged = [entry["event"] for entry in logs]
        return seen

    return asyncio.run(lived())


def test_what_publish_returned_for_survives_a_crash_of_the_server(crash: Crash) -> None:
    assert crash.confirmed_after == CONFIRMED


def test_a_position_is_good_after_a_crash_of_the_server(crash: Crash) -> None:
    assert crash.behind_position == CONFIRMED[100:]


def test_a_crash_in_the_middle_of_receiving_by_group_loses_nothing(crash: Crash) -> None:
    assert set(crash.received) == set(STREAM)


def test_a_crash_in_the_middle_of_reading_by_position_loses_nothing_and_keeps_the_order(crash: Crash) -> None:
    once = list(dict.fromkeys(crash.read))
    assert once == STREAM
    # Only what was under way when the server died may have been published twice.
    assert len(crash.read) <= len(STREAM) + 2


def test_a_server_that_is_down_is_unavailable_and_soon_said_to_be(crash: Crash) -> None:
    assert isinstance(crash.error_when_down, BrokerUnavailableError)
    assert "cannot be reached" in str(crash.error_when_down)
    assert crash.seconds_until_error < FAST_S


def test_losing_the_server_is_counted_and_logged_and_so_is_finding_it(crash: Crash) -> None:
    assert crash.losses >= 1
    assert crash.returns >= 1
    # Each change is logged once, not each try: one more by the broker that only tried to open, one that may still last.
    assert crash.logged.count("broker_lost") <= crash.logged.count("broker_found_again") + 2
    assert {"broker_lost", "broker_found_again"} <= set(crash.logged)


@pytest.fixture
async def healthy(server: Server) -> AsyncIterator[None]:
    """Leaves the server running, whatever the test did to it."""
    yield
    await asyncio.to_thread(server.start)


async def test_who_waits_for_messages_outlives_a_restart_of_the_server(
    server_rig: Rig, server: Server, healthy: None
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    listener = await broker.subscribe([topic], None, "c")
    waiting = [
        asyncio.create_task(server_rig.receive(member, 1, RESTART_S)),
        asyncio.create_task(server_rig.receive(listener, 1, RESTART_S)),
        asyncio.create_task(server_rig.read(broker, topic, 1, patience_s=RESTART_S)),
    ]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await publish_until_taken(broker, server_rig.messages(topic, "a"))
    assert [server_rig.bodies(await wait) for wait in waiting] == [["a"], ["a"], ["a"]]
