"""What a queen says to ants about their registrations."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from brokers.registry import make_broker
from formicary.bus import Bus, BusSubscription, Outgoing
from formicary.events import topics
from formicary.events.ants import HeartbeatsSeen, WorkerOffer
from formicary.events.base import Event
from formicary.ids import QueenId
from formicary.queen.registry import AntRegistry, Requirement
from formicary.queen.supervisor.ants import AntDesk
from formicary.testing.clock import FakeClock
from tests.unit.queen.conftest import heartbeat, registered


class Colony:
    """A desk on a bus, and an ant's ear and mouth."""

    def __init__(self, bus: Bus, registry: AntRegistry, answers: BusSubscription) -> None:
        self._bus = bus
        self.registry = registry
        self._answers = answers

    async def say(self, event: Event) -> HeartbeatsSeen:
        """Says something that wants an answer, and returns it."""
        await self._bus.publish([Outgoing(topics.ANTS, "a", event)])
        return await self.hear()

    async def hear(self) -> HeartbeatsSeen:
        async with asyncio.timeout(10):
            (received,) = await self._answers.receive(1, timeout_s=10)
        (answer,) = received.events
        assert isinstance(answer, HeartbeatsSeen)
        return answer


@pytest.fixture
async def colony() -> AsyncIterator[Colony]:
    broker, clock, registry = make_broker("memory://"), FakeClock(), AntRegistry()
    await broker.open()
    bus = Bus(broker, "sender", clock)
    answers = await bus.broadcast([topics.ANSWERS])
    desk = AntDesk(QueenId("q"), bus, registry, clock, 60.0, dict, lambda: None)
    await desk.open()
    running = asyncio.create_task(desk.run())
    colony = Colony(bus, registry, answers)
    assert (await colony.hear()).wants_registrations
    yield colony
    running.cancel()
    await asyncio.wait([running])
    await broker.close()


async def test_an_ant_that_registers_again_is_answered_at_once_and_has_its_new_workers(colony: Colony) -> None:
    await colony.say(registered())

    answer = await colony.say(registered(version=1, workers=(WorkerOffer(("cut",)),)))

    assert not answer.wants_registrations
    assert colony.registry.with_room(Requirement("DUMMY", (), ("cut", ())), 0.0)


async def test_a_queen_that_missed_a_registration_asks_for_it(colony: Colony) -> None:
    await colony.say(registered())

    assert not (await colony.say(heartbeat())).wants_registrations
    assert (await colony.say(heartbeat(sequence=9, version=1))).wants_registrations
