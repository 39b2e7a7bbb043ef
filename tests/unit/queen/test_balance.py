"""What waits at a busy ant and is asked back for one with free slots."""

from formicary.events.ants import Held
from formicary.ids import Incarnation, JobId
from formicary.queen.supervisor.balance import recall_waiting
from formicary.states.inputs import AttemptStarted
from formicary.testing.clock import EPOCH
from tests.unit.queen.conftest import Queen, heartbeat

FOREIGN = tuple(Held(4, JobId("of another queen"), number, 1) for number in range(2))


def busy_and_idle(queen: Queen) -> None:
    """Gives both tasks of a job to one ant, before another one with two slots comes."""
    queen.ant("busy", slots=2)
    queen.begin(queen.job(name="first"), queen.job(name="second"))
    queen.dispatch()
    queen.commit()
    queen.ant("idle", slots=2)


def recalled(queen: Queen) -> set[str]:
    recall_waiting(queen.engine, [queen.shard])
    return {message.event.job_id for message in queen.engine.batch.outgoing}  # type: ignore[attr-defined]  # recalls


def test_an_ant_that_runs_all_it_has_keeps_it(queen: Queen) -> None:
    busy_and_idle(queen)

    assert recalled(queen) == set()


def test_what_waits_behind_tasks_of_another_queen_is_asked_back(queen: Queen) -> None:
    busy_and_idle(queen)
    queen.registry.heard(heartbeat("busy", held=FOREIGN), 0.0, own_shards=(3,))

    assert recalled(queen) == {"first", "second"}
    assert recalled(queen) == {"first", "second"}, "each is asked for once"


def test_what_has_begun_is_not_asked_back(queen: Queen) -> None:
    busy_and_idle(queen)
    live = queen.shard.jobs[JobId("second")]
    queen.engine.step(live, AttemptStarted(task_no=0, attempt=1, started_at=EPOCH, at=EPOCH))
    queen.registry.heard(heartbeat("busy", held=FOREIGN), 0.0, own_shards=(3,))

    assert recalled(queen) == {"first"}


def test_nothing_is_asked_back_for_slots_that_another_queen_uses(queen: Queen) -> None:
    busy_and_idle(queen)
    queen.registry.heard(heartbeat("busy", held=FOREIGN), 0.0, own_shards=(3,))
    queen.registry.heard(heartbeat("idle", held=FOREIGN), 0.0, own_shards=(3,))

    assert recalled(queen) == set()


def test_own_attempts_are_not_counted_twice(queen: Queen) -> None:
    busy_and_idle(queen)
    own = tuple(Held(3, *key) for key in queen.shard.in_flight)
    queen.registry.heard(heartbeat("busy", held=(*own, *FOREIGN)), 0.0)  # its lease is in doubt just now

    ant = queen.registry.get(Incarnation("busy@1"))
    assert ant is not None
    assert (ant.others, ant.taken, ant.load) == (2, 4, 2.0)
