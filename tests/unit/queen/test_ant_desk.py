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
        async with asyncio.timeout(40):
            (received,) = await self._answers.receive(1, timeout_s=40)
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


async def test_an_answer_says_how_long_the_leases_last_by_which_an_ant_is_counted_lost(colony: Colony) -> None:
    assert (await colony.say(registered())).ant_lease_s == 60.0


async def test_an_ant_that_registers_again_is_answered_at_once_and_has_its_new_workers(colony: Colony) -> None:
    await colony.say(registered())

    answer = await colony.say(registered(version=1, workers=(WorkerOffer(("cut",)),)))

    assert not answer.wants_registrations
    assert colony.registry.with_room(Requirement("DUMMY", (), ("cut", ())), 0.0)


async def test_a_queen_that_missed_a_registration_asks_for_it(colony: Colony) -> None:
    await colony.say(registered())

    assert not (await colony.say(heartbeat())).wants_registrations
    assert (await colony.say(heartbeat(sequence=9, version=1))).wants_registrations


class Sleeper:
    """A desk that listens and answers when it is told to."""

    def __init__(self, desk: AntDesk, clock: FakeClock, answers: BusSubscription) -> None:
        self._desk = desk
        self._clock = clock
        self._answers = answers

    async def take(self, event: Event) -> HeartbeatsSeen:
        """Takes an event and returns the next answer."""
        self._desk._take(event)
        await self._desk.answer()
        (received,) = await self._answers.receive(1, timeout_s=40)
        (answer,) = received.events
        assert isinstance(answer, HeartbeatsSeen)
        return answer

    async def sleep(self) -> None:
        """Stands still for longer than any lease lasts."""
        await self._clock.advance(600.0)


@pytest.fixture
async def sleeper() -> AsyncIterator[Sleeper]:
    broker, clock = make_broker("memory://"), FakeClock()
    await broker.open()
    bus = Bus(broker, "sender", clock)
    desk = AntDesk(QueenId("q"), bus, AntRegistry(), clock, 60.0, dict, lambda: None)
    await desk.answer()
    yield Sleeper(desk, clock, await bus.broadcast([topics.ANSWERS]))
    await broker.close()


async def test_a_second_process_under_a_live_id_is_refused(sleeper: Sleeper) -> None:
    await sleeper.take(registered(process="first"))

    answer = await sleeper.take(registered(life=2, process="second"))

    assert (answer.refused, set(answer.sequences)) == ({"a@2": "first"}, {"a@1"})


async def test_an_ant_that_the_queen_did_not_hear_since_it_slept_keeps_nobody_from_its_id(sleeper: Sleeper) -> None:
    await sleeper.take(registered(process="first"))
    await sleeper.sleep()

    answer = await sleeper.take(registered(life=2, process="second"))

    assert (answer.refused, set(answer.sequences)) == ({}, {"a@1", "a@2"})


async def test_an_ant_that_is_heard_after_all_has_its_id_back(sleeper: Sleeper) -> None:
    await sleeper.take(registered(process="first"))
    await sleeper.sleep()
    await sleeper.take(registered(life=2, process="second"))

    assert (await sleeper.take(heartbeat(sequence=9))).refused == {"a@2": "first"}
    assert (await sleeper.take(registered(process="first", version=1))).refused == {}
