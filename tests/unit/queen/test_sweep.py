"""The sweep: what is sent again, what is doubted, and who is counted lost."""

import pytest

from formicary.events.tasks import BarrierReached, TaskCancelRequested, TaskDispatched
from formicary.ids import Incarnation, JobId
from formicary.queen.supervisor.live import AttemptKey
from formicary.queen.supervisor.sweep import BARRIER_PATIENCE, Sweep, waiting_reasons
from tests.unit.queen.conftest import Queen, heartbeat, held

PATIENCE_S = 3.0
LOST_AFTER_S = 90.0
A = Incarnation("a@1")
KEY: AttemptKey = (JobId("job-1"), 0, 1)


class Swept(Queen):
    """A queen with one dispatch under way, and its sweep. ``since``: from when it has listened without a gap."""

    def __init__(self) -> None:
        super().__init__()
        self.since: float | None = self.clock.boottime()
        self.sweep = Sweep(self.engine, PATIENCE_S, LOST_AFTER_S, lambda: self.since)
        self.ant()
        self.begin(self.job())
        self.dispatch()
        self.commit()

    def look(self) -> list[str]:
        """Looks once; returns what the look sent."""
        before = len(self.sent())
        self.sweep.look(self.shard)
        return self.sent()[before:]

    def inherit(self) -> None:
        """Makes the dispatch one of an older epoch."""
        del self.shard.in_flight[KEY]
        self.shard.inherited[KEY] = A


@pytest.fixture
def swept() -> Swept:
    return Swept()


async def test_a_dispatch_without_a_sign_of_life_is_sent_again_each_time(swept: Swept) -> None:
    assert swept.look() == []
    await swept.clock.advance(PATIENCE_S)
    assert swept.look() == ["TaskDispatched"]
    assert swept.look() == []
    await swept.clock.advance(PATIENCE_S)
    assert swept.look() == ["TaskDispatched"]
    events = [message.event for message in swept.engine.batch.outgoing]
    assert {event.attempt for event in events if isinstance(event, TaskDispatched)} == {1}


async def test_a_dispatch_that_is_not_committed_is_never_sent_again(swept: Swept) -> None:
    swept.shard.in_flight[KEY].receipt.is_committed = False
    await swept.clock.advance(10 * PATIENCE_S)
    assert swept.look() == []


async def test_an_attempt_that_its_ant_holds_is_left_alone(swept: Swept) -> None:
    swept.registry.heard(heartbeat(held=held(KEY)), swept.clock.boottime())
    await swept.clock.advance(10 * PATIENCE_S)
    assert swept.look() == []
    assert swept.shard.in_flight[KEY].is_confirmed


async def test_a_dispatch_that_shall_stop_is_not_sent_again_but_its_stop_is(swept: Swept) -> None:
    swept.engine.ask_to_stop(swept.shard, KEY)
    assert swept.look() == []
    await swept.clock.advance(PATIENCE_S)
    assert swept.look() == ["TaskCancelRequested"]
    stop = swept.engine.batch.outgoing[-1].event
    assert isinstance(stop, TaskCancelRequested)
    assert (stop.attempt, stop.epoch) == (1, 7)


async def test_the_request_to_stop_an_attempt_that_ended_is_forgotten(swept: Swept) -> None:
    swept.engine.ask_to_stop(swept.shard, KEY)
    del swept.shard.in_flight[KEY]
    await swept.clock.advance(PATIENCE_S)
    assert swept.look() == []
    assert swept.shard.stops == {}


def test_attempts_of_a_lost_ant_wait_for_one_barrier(swept: Swept) -> None:
    swept.registry.lose(A)

    assert swept.look() == ["BarrierReached"]
    assert swept.look() == []
    barrier = swept.engine.batch.outgoing[-1].event
    assert isinstance(barrier, BarrierReached)
    assert (barrier.shard, barrier.epoch) == (3, 7)
    assert swept.shard.barriers[barrier.number].attempts == {KEY: True}
    assert KEY in swept.shard.in_flight


def test_a_loss_that_does_not_count_settles_its_attempts_without_counting(swept: Swept) -> None:
    swept.registry.lose(A, counts=False)
    swept.look()
    assert swept.shard.barriers[1].attempts == {KEY: False}


def test_a_loss_counts_for_no_attempt_that_had_not_begun_as_its_ant_says(swept: Swept) -> None:
    swept.registry.note_unbegun(A, held(KEY))
    swept.registry.lose(A)
    swept.look()
    assert swept.shard.barriers[1].attempts == {KEY: False}


async def test_a_barrier_that_the_broker_lost_is_sent_again_under_its_number(swept: Swept) -> None:
    swept.registry.lose(A)
    swept.look()
    await swept.clock.advance(BARRIER_PATIENCE * PATIENCE_S)

    assert swept.look() == ["BarrierReached"]
    numbers = [getattr(message.event, "number", None) for message in swept.engine.batch.outgoing]
    assert numbers == [1, 1]


def test_an_inherited_attempt_runs_on_until_its_ant_echoes_the_epoch_without_it(swept: Swept) -> None:
    swept.inherit()
    swept.registry.heard(heartbeat(sequence=1, epochs={3: 6}), swept.clock.boottime())
    assert swept.look() == []
    swept.registry.heard(heartbeat(sequence=2, epochs={3: 7}, held=held(KEY)), swept.clock.boottime())
    assert swept.look() == []
    swept.registry.heard(heartbeat(sequence=3, epochs={3: 7}), swept.clock.boottime())
    assert swept.look() == ["BarrierReached"]
    assert swept.shard.barriers[1].attempts == {KEY: False}


async def test_an_inherited_attempt_of_an_unknown_ant_is_doubted_after_the_lease_and_margin(swept: Swept) -> None:
    swept.inherit()
    swept.shard.inherited[KEY] = Incarnation("stranger@1")

    await swept.clock.advance(LOST_AFTER_S)
    assert swept.look() == []
    await swept.clock.advance(1.0)
    assert swept.look() == ["BarrierReached"]
    assert swept.registry.is_lost(Incarnation("stranger@1"))


async def test_a_silent_ant_is_counted_lost_after_the_lease_and_margin(swept: Swept) -> None:
    await swept.clock.advance(LOST_AFTER_S)
    assert swept.sweep.count_lost() == []
    await swept.clock.advance(1.0)
    assert swept.sweep.count_lost() == [A]
    assert swept.registry.loss_counts(A, KEY)


@pytest.mark.parametrize("since_s", [None, 50.0])
async def test_a_queen_that_was_cut_off_counts_nobody_lost_for_its_own_silence(
    swept: Swept, since_s: float | None
) -> None:
    began = swept.clock.boottime()
    await swept.clock.advance(LOST_AFTER_S + 10.0)
    swept.since = None if since_s is None else began + since_s
    assert swept.sweep.count_lost() == []


async def test_a_job_says_why_it_waits_until_it_does_not(swept: Swept) -> None:
    for ant in swept.registry:
        ant.attempts |= {(JobId("other"), number, 1) for number in range(2)}
    waiting = swept.job(name="waiting")
    swept.begin(waiting)
    swept.commit()

    waiting_reasons(swept.engine)
    assert waiting.waiting_for == "task t: the only matching ant is full (2 of 2 slots)"
    assert waiting in swept.engine.batch.jobs

    swept.registry.lose(A)
    swept.ant("b")
    swept.dispatch()
    waiting_reasons(swept.engine)
    assert waiting.waiting_for is None
