"""A runnable task takes the result of an earlier run: the same to all that follows as if it had run."""

from datetime import timedelta

import msgspec

from formicary.model.states import JobState, TaskState
from formicary.states.inputs import RestartMode
from formicary.testing.drill import begun, task


def test_a_task_that_takes_a_result_is_completed_and_what_depends_on_it_runs() -> None:
    drill = begun(task("a"), task("b", after=["a"]))
    drill.reuse("a")
    cell = drill.cell("a")
    assert (cell.state, cell.attempt, cell.exit_code, cell.outputs) == (TaskState.COMPLETED, 1, 0, {"from": "job-0"})
    assert (cell.incarnation, cell.dispatched_at, cell.finished_at) == (None, None, drill.now)
    assert cell.reused_from is not None
    assert (cell.reused_from.job_id, cell.reused_from.attempt) == ("job-0", 3)
    assert list(drill.offered) == ["b"]


def test_a_job_whose_last_task_takes_a_result_is_over() -> None:
    drill = begun(task("a"))
    drill.reuse("a")
    assert (drill.is_over, drill.job.state) == (True, JobState.COMPLETED)


def test_the_exit_code_that_is_taken_routes_as_it_did() -> None:
    drill = begun(task("a", codes={"3": "odd"}, on_completed=["even"]), task("odd"), task("even"))
    drill.reuse("a", 3)
    assert list(drill.offered) == ["odd"]
    assert drill.states["even"] == "SKIPPED"


def test_a_result_that_was_taken_survives_a_crash() -> None:
    drill = begun(task("a"), task("b", after=["a"]))
    drill.reuse("a")
    drill.crash()
    assert (drill.states["a"], list(drill.offered)) == ("COMPLETED", ["b"])


def test_a_restart_writes_down_that_a_result_was_taken_and_counts_attempts_on() -> None:
    drill = begun(task("a"))
    drill.reuse("a")
    drill.run.archived.clear()
    run = drill.run
    drill.restart(RestartMode.ALL)
    (former,) = run.archived
    assert (former.attempt, former.reused_from is not None) == (1, True)
    assert drill.cell("a").reused_from is None
    drill.dispatch("a")
    assert drill.cell("a").attempt == 2


def test_only_a_hard_restart_ignores_earlier_results_until_the_next_restart() -> None:
    drill = begun(task("a"), retry=1)
    drill.end("a", 1)
    assert not drill.job.ignores_memo
    drill.end("a", 1)
    for mode, from_task, ignores in (
        (RestartMode.ALL, None, True),
        (RestartMode.FAILED, None, False),
        (RestartMode.FAILED, "a", True),
    ):
        drill.restart(mode, from_task)
        drill.end("a", 1)
        assert drill.job.ignores_memo is ignores
        drill.end("a", 1)


def test_a_job_that_restarts_by_an_exit_code_takes_no_result_of_its_own() -> None:
    drill = begun(task("a", codes={"5": "RESTART_JOB"}), retry=1)
    drill.end("a", 5)
    assert drill.job.ignores_memo


def test_a_success_that_is_repeated_is_nobodys_result() -> None:
    drill = begun(task("a", codes={"0": "EXECUTING"}, retry=1))
    drill.dispatch("a")
    drill.cell("a").memo = "digest"
    drill.finish("a", 0)
    (archived,) = drill.run.archived
    assert (archived.state, archived.memo) == (TaskState.COMPLETED, None)


def test_a_result_is_as_old_as_its_owner_says_and_took_as_long_as_its_ant_says() -> None:
    drill = begun(task("a"), task("b"))
    for name, memo in (("a", "digest"), ("b", None)):
        drill.dispatch(name)
        drill.cell(name).memo = memo
        by_another_clock = drill.now - timedelta(hours=3)
        began_at = by_another_clock - timedelta(seconds=5)
        drill.feed(msgspec.structs.replace(drill.finished(name), started_at=began_at, finished_at=by_another_clock))
    cell, other = drill.cell("a"), drill.cell("b")
    assert (cell.started_at, cell.finished_at) == (drill.now - timedelta(seconds=5), drill.now)
    assert other.finished_at == drill.now - timedelta(hours=3)
