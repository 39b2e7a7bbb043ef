"""Tasks whose attempts are kept apart in one place only: their attempts never leave it."""

import pytest

from formicary.ids import Incarnation
from formicary.model.definition import RetryPolicy
from formicary.model.states import TaskState
from formicary.queen.supervisor.live import LiveJob
from formicary.queen.supervisor.ready import requirement_of
from formicary.queen.supervisor.rows import task_cells, task_row
from formicary.states.inputs import AttemptDeclined, AttemptFinished, AttemptLost, CancelRequested, RestartRequested
from formicary.testing.drill import task
from tests.unit.queen.conftest import Queen


def placed_ant(queen: Queen, name: str, place: str) -> Incarnation:
    """Registers an ant that runs pods in a place."""
    incarnation = Incarnation(f"{name}@1+{place}")
    queen.ant(name, incarnation=incarnation, methods=("KUBERNETES", "SHELL"))
    return incarnation


def dispatched(queen: Queen, method: str = "KUBERNETES") -> tuple[LiveJob, Incarnation]:
    """Returns a job whose task was given to an ant in the place x."""
    live = queen.job(task("a", method=method, retry=RetryPolicy(limit=1)))
    queen.begin(live)
    incarnation = placed_ant(queen, "first", "x")
    queen.dispatch()
    return live, incarnation


def lose(queen: Queen, live: LiveJob, incarnation: Incarnation) -> None:
    queen.registry.lose(incarnation)
    queen.engine.step(live, AttemptLost(at=queen.clock.now(), task_no=0, attempt=1, counts=True))


def test_after_the_loss_of_its_ant_a_pods_task_waits_for_an_ant_of_the_same_place(queen: Queen) -> None:
    live, first = dispatched(queen)
    lose(queen, live, first)
    placed_ant(queen, "elsewhere", "y")

    queen.dispatch()
    assert live.run.tasks[0].attempt == 1
    why = queen.registry.explain(requirement_of(live, 0))
    assert why == "no live ant offers KUBERNETES where an earlier attempt of the task ran"

    second = placed_ant(queen, "second", "x")
    queen.dispatch()
    assert (live.run.tasks[0].attempt, live.run.tasks[0].incarnation) == (2, second)


def test_other_tasks_go_wherever_there_is_room(queen: Queen) -> None:
    live, first = dispatched(queen, "SHELL")
    lose(queen, live, first)
    elsewhere = placed_ant(queen, "elsewhere", "y")

    queen.dispatch()

    assert live.run.tasks[0].incarnation == elsewhere


def finish(queen: Queen, live: LiveJob, attempt: int, reason: str, error_code: str | None = None) -> None:
    now = queen.clock.now()
    ended = AttemptFinished(
        at=now,
        task_no=0,
        attempt=attempt,
        reason=reason,
        exit_code=1,
        is_success=False,
        started_at=now,
        finished_at=now,
        error_code=error_code,
    )
    queen.engine.step(live, ended)


def test_the_place_outlasts_a_queen_a_stop_and_a_restart_and_names_no_ant(queen: Queen) -> None:
    live, _ = dispatched(queen)
    now = queen.clock.now()
    finish(queen, live, 1, "timed_out")
    assert live.run.tasks[0].incarnation == "@+x"

    (cell,) = task_cells(1, [task_row(live.id, live.run.tasks[0])])
    assert cell.incarnation == "@+x"
    queen.engine.step(live, CancelRequested(at=now))
    queen.engine.step(live, RestartRequested(at=now))
    assert requirement_of(live, 0).place == "x"


#: Ends of an attempt, and where the next one must be.
ENDS = [
    ("exited", None, ""),
    ("out_of_memory", None, ""),
    ("error", "ERR_EVICTED", ""),
    ("timed_out", None, "x"),
    ("cancelled", None, "x"),
    ("error", "ERR_EXECUTOR", "x"),
    ("error", "ERR_UNSCHEDULABLE", "x"),
]


@pytest.mark.parametrize(("reason", "error_code", "place"), ENDS)
def test_an_attempt_that_ran_and_is_over_binds_nobody_to_its_place(
    queen: Queen, reason: str, error_code: str | None, place: str
) -> None:
    live, _ = dispatched(queen)

    finish(queen, live, 1, reason, error_code)

    assert requirement_of(live, 0).place == place
    (cell,) = task_cells(1, [task_row(live.id, live.run.tasks[0])])
    assert cell.incarnation == ("@+x" if place else None)


def test_after_the_end_of_a_later_attempt_no_lost_one_binds_the_task(queen: Queen) -> None:
    live, first = dispatched(queen)
    lose(queen, live, first)
    assert requirement_of(live, 0).place == "x"
    placed_ant(queen, "second", "x")
    queen.dispatch()

    finish(queen, live, 2, "exited")

    assert live.run.tasks[0].state is TaskState.PENDING
    assert requirement_of(live, 0).place == ""


def test_ants_that_decline_one_after_the_other_bind_nobody(queen: Queen) -> None:
    live, first = dispatched(queen)
    decline(queen, live, first, 1)
    queen.registry.lose(first)
    second = placed_ant(queen, "second", "y")
    queen.dispatch()
    assert live.run.tasks[0].incarnation == second
    decline(queen, live, second, 2)

    assert requirement_of(live, 0).place == ""


def test_a_queen_that_did_not_dispatch_a_declined_attempt_leaves_it_bound(queen: Queen) -> None:
    live, first = dispatched(queen)
    decline(queen, live, first, 1)
    queen.dispatch()
    (cell,) = task_cells(1, [task_row(live.id, live.run.tasks[0])])
    assert (cell.attempt, cell.is_first_there) == (2, False)


@pytest.mark.parametrize(("attempts", "place"), [(1, ""), (2, "x")])
def test_an_ant_that_declined_binds_nobody_to_its_place(queen: Queen, attempts: int, place: str) -> None:
    live, first = dispatched(queen)
    if attempts == 2:
        lose(queen, live, first)
        first = placed_ant(queen, "second", "x")
        queen.dispatch()

    decline(queen, live, first, attempts)

    assert requirement_of(live, 0).place == place


def decline(queen: Queen, live: LiveJob, incarnation: Incarnation, attempt: int) -> None:
    now = queen.clock.now()
    queen.engine.step(
        live, AttemptDeclined(at=now, task_no=0, attempt=attempt, incarnation=incarnation, reason="draining")
    )
