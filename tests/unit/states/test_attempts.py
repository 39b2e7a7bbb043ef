"""Attempts: retries, loss, declined and late answers (rule 7 of the job language's flow)."""

import pytest

from formicary.ids import Incarnation
from formicary.model.definition import BackoffPolicy, RetryPolicy
from formicary.states.commands import MakeRunnable, WakeAfter
from formicary.states.inputs import DelayElapsed
from formicary.testing.drill import ANT, begun, task


def test_a_dispatch_and_its_end_are_written_into_the_cell() -> None:
    drill = begun(task("a"))
    drill.wait(1)
    drill.dispatch("a")
    cell = drill.cell("a")
    assert (cell.state, cell.attempt, cell.incarnation, cell.epoch, cell.dispatched_at) == (
        "READY",
        1,
        ANT,
        1,
        drill.now,
    )
    drill.wait(1)
    drill.start("a")
    assert (cell.state, cell.started_at) == ("EXECUTING", drill.now)
    drill.finish("a")
    assert (cell.state, cell.exit_code, cell.finished_at) == ("COMPLETED", 0, drill.now)


def test_a_start_that_was_left_out_is_made_good_by_the_end() -> None:
    drill = begun(task("a"))
    drill.end("a")
    assert drill.cell("a").started_at == drill.now


def test_a_failure_is_retried_after_its_delay_and_then_for_good() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=5)))
    assert drill.end("a", 1) == [WakeAfter(0, 1, 1, 5)]
    cell = drill.cell("a")
    assert (cell.state, cell.retries_used, cell.error_code) == ("PENDING", 1, "ERR_EXIT_CODE")
    assert not drill.offered
    assert drill.wake("a") == [MakeRunnable(0)]
    drill.end("a", 1)
    assert (cell.state, cell.attempt, drill.job.state) == ("FAILED", 2, "FAILED")


def test_without_delay_a_retry_is_runnable_at_once() -> None:
    drill = begun(task("a", retry=1))
    assert drill.end("a", 1) == [MakeRunnable(0)]


def test_delays_follow_the_backoff() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=3, backoff=BackoffPolicy(min_s=1, factor=4, jitter=0))))
    delays = []
    for _ in range(3):
        drill.end("a", 1)
        delays.append(drill.timers["a"].delay_s)
        drill.wake("a")
    assert delays == [1, 4, 16]


def test_the_ended_attempt_goes_to_the_archive_and_leaves_the_cell() -> None:
    drill = begun(task("a", retry=1))
    drill.end("a", 1)
    (ended,) = drill.run.archived
    assert (ended.state, ended.attempt, ended.exit_code, ended.incarnation) == ("FAILED", 1, 1, ANT)
    drill.end("a")
    assert len(drill.run.archived) == 1
    assert (drill.cell("a").state, drill.cell("a").error_code) == ("COMPLETED", None)


def test_a_lost_ant_costs_no_retry() -> None:
    drill = begun(task("a"))
    drill.dispatch("a")
    assert drill.lose("a") == [MakeRunnable(0)]
    assert (drill.cell("a").ants_lost, drill.cell("a").retries_used) == (1, 0)
    (ended,) = drill.run.archived
    assert ended.state == "CANCELLED"
    assert "ant was lost" in (ended.error_message or "")
    drill.play()
    assert (drill.job.state, drill.cell("a").attempt) == ("COMPLETED", 2)


def test_the_third_lost_ant_fails_the_task_without_retry() -> None:
    drill = begun(task("a", retry=9))
    for _ in range(3):
        drill.dispatch("a")
        drill.lose("a")
    assert (drill.cell("a").state, drill.cell("a").error_code, drill.cell("a").ants_lost) == (
        "FAILED",
        "ERR_ANT_LOST",
        3,
    )
    assert drill.job.error_code == "ERR_ANT_LOST"


def test_a_loss_while_the_owner_was_cut_off_does_not_count() -> None:
    drill = begun(task("a"))
    for _ in range(9):
        drill.dispatch("a")
        drill.lose("a", counts=False)
    assert (drill.cell("a").state, drill.cell("a").ants_lost) == ("PENDING", 0)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("is_declined_then", [True, False])
def test_what_a_lost_ant_may_have_run_is_not_called_skipped(counts: bool, is_declined_then: bool) -> None:
    drill = begun(task("a"), task("b"), task("c", after=["a"]))
    drill.dispatch("a")
    drill.lose("a", counts=counts)
    if is_declined_then:
        drill.dispatch("a")
        drill.decline("a")
    drill.end("b", 1)
    assert drill.states == {"a": "CANCELLED", "b": "FAILED", "c": "SKIPPED"}


def test_what_was_only_declined_is_called_skipped() -> None:
    drill = begun(task("a"), task("b"))
    drill.dispatch("a")
    drill.decline("a")
    drill.end("b", 1)
    assert drill.states == {"a": "SKIPPED", "b": "FAILED"}


def test_an_attempt_after_a_lost_one_says_how_it_ended_itself() -> None:
    drill = begun(task("a"))
    drill.dispatch("a")
    drill.lose("a", counts=False)
    assert drill.cell("a").error_message == "its ant was lost; the attempt is repeated at no cost"
    drill.end("a")
    assert (drill.cell("a").state, drill.cell("a").error_message) == ("COMPLETED", None)


def test_a_declined_attempt_is_runnable_again_at_no_cost() -> None:
    drill = begun(task("a"))
    drill.dispatch("a")
    assert drill.decline("a") == [MakeRunnable(0)]
    (ended,) = drill.run.archived
    assert (ended.state, ended.attempt) == ("CANCELLED", 1)
    assert "busy" in (ended.error_message or "")
    assert drill.cell("a").retries_used == 0


def test_only_the_ant_that_it_was_sent_to_may_decline() -> None:
    drill = begun(task("a"))
    drill.dispatch("a")
    assert drill.decline("a", Incarnation("ant-1@older")) == []
    assert drill.cell("a").state == "READY"


def test_a_duplicate_end_changes_nothing() -> None:
    drill = begun(task("a"), task("b"))
    drill.dispatch("a")
    end = drill.finished("a", 0)
    drill.feed(end)
    drill.run.changed_tasks.clear()
    assert drill.feed(end) == []
    assert drill.feed(drill.finished("a", 1)) == []
    assert drill.cell("a").state == "COMPLETED"
    assert not drill.run.changed_tasks


def test_the_end_of_an_older_attempt_is_ignored() -> None:
    drill = begun(task("a"))
    drill.dispatch("a")
    late = drill.finished("a")
    drill.lose("a")
    drill.dispatch("a")
    assert drill.feed(late) == []
    assert drill.cell("a").state == "READY"


def test_a_timer_of_an_older_attempt_is_ignored() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=2, delay_s=5)))
    drill.end("a", 1)
    old = DelayElapsed(at=drill.now, task_no=0, attempt=1, job_attempt=1)
    drill.wake("a")
    assert drill.feed(old) == []
    drill.end("a", 1)
    assert drill.feed(old) == []
    assert not drill.offered


def test_what_changed_is_told_and_nothing_else() -> None:
    drill = begun(task("a"), task("b", after=["a"]), task("c"))
    drill.run.changed_tasks.clear()
    drill.run.job_changed = False
    drill.end("a")
    assert list(drill.run.changed_tasks) == [0]
    assert not drill.run.job_changed
