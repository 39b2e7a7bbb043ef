"""Registration, answered heartbeats, and what becomes of an ant that is not answered any more."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from brokers.base import Position
from formicary.ant.ant import Ant
from formicary.ant.errors import AntIdHeldError
from formicary.bus import Bus, BusSubscription, Packet
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, AntLeft, AntRegistered, HeartbeatsSeen, Held
from formicary.events.base import Event
from formicary.events.orders import Order
from formicary.events.tasks import TaskDeclined, TaskFinished, TaskStarted
from formicary.ids import QueenId
from formicary.testing.owner import SHARD, ScriptedOwner, dummy, python, shell

AntMaker = Callable[..., Awaitable[Ant]]
#: Leases that can lapse, quickly; the warden's last words go to a broker of its own process.
_LEASED: dict[str, Any] = {"survives_process": True, "broker_url": "memory://", "lease_s": 0.6, "slots": 2}


class Listener:
    """Hears what the ant tells all queens."""

    def __init__(self, subscription: BusSubscription) -> None:
        self._subscription = subscription
        self.heard: list[Event] = []

    async def hear(self, kind: type[Event], count: int = 1) -> list[Any]:
        while sum(isinstance(event, kind) for event in self.heard) < count:
            for item in await self._subscription.receive(100, 5.0):
                self.heard.extend(item.events)
        return [event for event in self.heard if isinstance(event, kind)]

    async def left_with(self, held: Held) -> AntLeft:
        """Waits for the end of the life that held an attempt; a busy machine may have let others lapse before."""
        count = 1
        while True:
            lives: list[AntLeft] = await self.hear(AntLeft, count)
            if found := [left for left in lives if held in left.attempts]:
                return found[0]
            count = len(lives) + 1


@pytest.fixture
async def listener(bus: Bus) -> AsyncIterator[Listener]:
    subscription = await bus.subscribe([topics.ANTS], None, "listener")
    yield Listener(subscription)
    await subscription.close()


@pytest.fixture
async def leased(make_ant: AntMaker) -> Ant:
    return await make_ant(**_LEASED)


@pytest.fixture
async def answered(bus: Bus, leased: Ant, listener: Listener) -> AsyncIterator["Answered"]:
    answered = Answered(ScriptedOwner(bus, lambda: leased.registration.incarnation), listener)
    yield answered
    answered.task.cancel()


class Answered:
    """An owner that answers heartbeats until told to fall silent."""

    def __init__(self, owner: ScriptedOwner, listener: Listener) -> None:
        self.owner = owner
        self.task = asyncio.create_task(owner.answer())
        self._listener = listener
        self._number = 0

    async def outlives_its_lease(self, number: int) -> bool:
        """Says whether a task ended before the life of the ant in which it began."""
        held = Held(SHARD, self.owner.job_id, number, 1)
        ends = asyncio.create_task(self.owner.finished(number)), asyncio.create_task(self._listener.left_with(held))
        done, lasting = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in lasting:
            end.cancel()
        await asyncio.gather(*lasting, return_exceptions=True)
        return ends[0] in done and ends[0].result().is_success

    async def run_until_accepted(self, order: Order) -> int:
        """Dispatches after each heartbeat until one was answered; returns the number of the task that runs."""
        for _ in range(20):
            number = self._number = self._number + 1
            await self._listener.hear(AntHeartbeat, number)
            await self.owner.send(self.owner.dispatch(order, number))
            while not (said := [event for event in await self.owner.read() if getattr(event, "task_no", -1) == number]):
                pass
            if isinstance(said[0], TaskStarted):
                return number
        raise AssertionError("never accepted")


async def test_an_ant_says_what_it_offers(listener: Listener, make_ant: AntMaker) -> None:
    ant = await make_ant(slots=3, tags=("gpu",), groups=("team",), methods=("SHELL", "PYTHON"))
    (said,) = await listener.hear(AntRegistered)
    assert (said.ant_id, said.incarnation) == ("ant-1", ant.registration.incarnation)
    assert (said.methods, said.in_process_methods, said.tags, said.groups) == (
        ("SHELL", "PYTHON"),
        ("PYTHON",),
        ("gpu",),
        ("team",),
    )
    assert (said.slots, said.prefetch, said.inbox_topic) == (3, 256, "formicary.ant.ant-1")


async def test_an_ant_registers_again_when_a_queen_asks(listener: Listener, ant: Ant, owner: ScriptedOwner) -> None:
    await owner.say(wants_registrations=True)
    first, second = await listener.hear(AntRegistered, 2)
    assert first.incarnation == second.incarnation


async def test_a_heartbeat_names_what_is_held_and_echoes_the_newest_epoch(
    listener: Listener, ant: Ant, owner: ScriptedOwner
) -> None:
    await owner.send(owner.dispatch(shell("sleep 60"), 5))
    await owner.report(TaskStarted, 5)
    await owner.say(epochs={SHARD: 9, 1: 2})
    beat = (await listener.hear(AntHeartbeat, 2))[-1]
    assert beat.held == (Held(SHARD, owner.job_id, 5, 1),)
    assert (beat.epochs, beat.slots_free) == ({SHARD: 9, 1: 2}, 3)


async def test_an_id_that_another_holds_ends_the_ant_with_the_holder_named(ant: Ant, owner: ScriptedOwner) -> None:
    await owner.say(refused={ant.registration.incarnation: "host-b:4711"})
    with pytest.raises(AntIdHeldError, match="host-b:4711"):
        await ant.wait()


async def test_without_an_answered_heartbeat_nothing_is_accepted(leased: Ant, bus: Bus) -> None:
    owner = ScriptedOwner(bus, lambda: leased.registration.incarnation)
    await owner.send(owner.dispatch(dummy()))
    assert (await owner.report(TaskDeclined)).reason == "no_lease"


async def test_with_answers_the_work_outlives_many_leases(answered: Answered) -> None:
    for _ in range(5):  # a machine that stands still for as long as a lease lasts ends the lease
        if await answered.outlives_its_lease(await answered.run_until_accepted(shell("sleep 2"))):
            return
    raise AssertionError("none outlived its lease")


async def test_work_of_a_lapsed_lease_is_killed_given_away_and_not_reported(
    answered: Answered, leased: Ant, listener: Listener, tmp_path: Path
) -> None:
    number = await answered.run_until_accepted(shell(f"echo $$ > {tmp_path}/pid; trap '' TERM; sleep 60; sleep 60"))
    answered.task.cancel()
    held = Held(SHARD, answered.owner.job_id, number, 1)
    left = await listener.left_with(held)
    assert left.attempts == (held,)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    while leased.registration.incarnation not in {life.incarnation for life in await listener.hear(AntRegistered)}:
        pass
    assert leased.registration.incarnation != left.incarnation
    assert not [event for event in await answered.owner.read(0.01) if isinstance(event, TaskFinished)]


async def test_no_life_is_announced_before_the_work_of_the_former_is_over(
    answered: Answered, leased: Ant, listener: Listener
) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb"):
        number = await answered.run_until_accepted(python("os:read", reader, 1))
        old = leased.registration.incarnation
        answered.task.cancel()
        beats = 1
        while leased.registration.incarnation == old:
            beats = len(await listener.hear(AntHeartbeat, beats + 1))
        await answered.owner.say(wants_registrations=True)
        os.write(writer, b"!")  # soon: the warden of an ant whose work does not end kills it, which is this process
        left = await listener.left_with(Held(SHARD, answered.owner.job_id, number, 1))
    before = listener.heard[: listener.heard.index(left)]
    new = leased.registration.incarnation
    assert left.incarnation != new
    assert new not in {event.incarnation for event in before if isinstance(event, AntRegistered)}
    assert new in {event.incarnation for event in await listener.hear(AntRegistered)}


async def test_nor_where_the_former_one_was_asked_to_register_as_it_ended(
    answered: Answered, leased: Ant, listener: Listener
) -> None:
    await answered.run_until_accepted(python("time:sleep", 0.5))
    old = leased.registration.incarnation

    # Both come to the loop in one turn, as they may after a pause: the registration has yet to begin.
    leased._on_answer(HeartbeatsSeen(queen_id=QueenId("queen"), epochs={}, sequences={}, wants_registrations=True))
    leased._end_incarnation(old)

    (left,) = await listener.hear(AntLeft)
    assert left.incarnation == old
    before = listener.heard[: listener.heard.index(left)]
    new = leased.registration.incarnation
    assert new not in {event.incarnation for event in before if isinstance(event, AntRegistered)}
    while new not in {event.incarnation for event in await listener.hear(AntRegistered)}:
        pass


@pytest.mark.parametrize("ask", [ScriptedOwner.cancel, ScriptedOwner.recall], ids=["cancel", "recall"])
async def test_what_a_new_owner_was_told_is_not_held_never_begins_for_the_former_one(
    ask: Callable[[ScriptedOwner], Event], ant: Ant, owner: ScriptedOwner, tmp_path: Path
) -> None:
    late = owner.dispatch(python("os:mkdir", str(tmp_path / "ran")))  # committed, and its sender was stopped
    owner.epoch += 1
    await owner.send(ask(owner))
    assert (await owner.report(TaskDeclined)).reason == "not_held"

    await owner.send(late)

    said: list[str] = []
    while "old_epoch" not in said:
        said = [event.reason for event in await owner.read() if isinstance(event, TaskDeclined)]
    await ant._intake.idle()
    assert not (tmp_path / "ran").exists()


async def test_what_was_accepted_as_its_incarnation_ended_never_begins(
    ant: Ant, owner: ScriptedOwner, listener: Listener, tmp_path: Path
) -> None:
    dispatch = owner.dispatch(python("os:mkdir", str(tmp_path / "ran")))
    old = ant.registration.incarnation

    # Both come to the loop in one turn, as they may after a pause: the worker of the attempt has yet to begin.
    ant._intake.handle([Packet(Position(b"1"), (dispatch,), "queen", None)])
    ant._end_incarnation(old)

    (left,) = await listener.hear(AntLeft)
    assert (left.incarnation, left.attempts, left.unbegun) == (old, (Held(SHARD, owner.job_id, 0, 1),), ())
    await ant._intake.idle()
    assert not (tmp_path / "ran").exists()


async def test_what_waited_for_a_slot_as_the_ant_was_lost_is_given_away_as_not_begun(
    make_ant: AntMaker, bus: Bus, listener: Listener
) -> None:
    ant = await make_ant(slots=1, prefetch=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(*(owner.dispatch(shell("sleep 60"), number) for number in range(2)))
    await owner.report(TaskStarted, 0)

    await owner.say(lost=(ant.registration.incarnation,))

    (left,) = await listener.hear(AntLeft)
    begun, waited = (Held(SHARD, owner.job_id, number, 1) for number in range(2))
    assert set(left.attempts) == {begun, waited}
    assert left.unbegun == (waited,)


async def test_an_ant_that_was_counted_lost_begins_a_new_incarnation(
    ant: Ant, owner: ScriptedOwner, listener: Listener
) -> None:
    await owner.send(owner.dispatch(shell("sleep 60"), 0), owner.dispatch(python("math:sqrt", 4), 1))
    await owner.finished(1)
    await owner.report(TaskStarted, 0)
    old = ant.registration.incarnation
    stale = owner.dispatch(dummy(), 2)
    await owner.say(lost=(old,))
    (left,) = await listener.hear(AntLeft)
    assert [held.task_no for held in left.attempts] == [0]
    await owner.send(stale)
    assert (await owner.report(TaskDeclined, 2)).reason == "wrong_incarnation"
    assert (await owner.run(dummy(), task_no=3)).is_success
    assert not [event for event in owner.reports if isinstance(event, TaskFinished) and event.task_no == 0]
