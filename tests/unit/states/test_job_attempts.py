"""Job attempts: retries of the job and restarts by people (rule 9 of the job language's flow)."""

from formicary.model.definition import RetryPolicy
from formicary.states.commands import Requeue
from formicary.states.inputs import DelayElapsed, RestartMode, RestartRequested
from formicary.testing.drill import begun, task


def test_a_job_retry_resumes_at_what_failed() -> None:
    drill = begun(task("a"), task("b", after=["a"]), task("c", after=["b"]), task("d", after=["a"]), retry=1)
    drill.play({"b": [1, 0]})
    assert drill.order == ["a", "b", "b", "d", "c"]
    assert (drill.job.state, drill.job.attempt, drill.job.retries_used) == ("COMPLETED", 2, 1)
    assert (drill.cell("a").job_attempt, drill.cell("b").job_attempt, drill.cell("b").attempt) == (1, 2, 2)


def test_all_that_lies_downstream_of_a_failure_runs_anew_by_any_edge() -> None:
    drill = begun(
        task("a", on_failed=["h"]),
        task("h", on_completed=["i"]),
        task("i"),
        task("x"),
        task("j", after=["x", "i"]),
        retry=1,
    )
    drill.play({"a": [1, 0]})
    assert drill.states == {"a": "COMPLETED", "h": "SKIPPED", "i": "SKIPPED", "x": "COMPLETED", "j": "COMPLETED"}
    assert [drill.cell(name).attempt for name in ("a", "h", "i", "x", "j")] == [2, 1, 1, 1, 2]


def test_a_retry_counts_its_tasks_budgets_anew_and_archives_their_last_attempts() -> None:
    drill = begun(task("a", retry=1), retry=1)
    drill.play({"a": [1, 1, 1, 0]})
    assert drill.job.state == "COMPLETED"
    assert (drill.cell("a").attempt, drill.cell("a").retries_used) == (4, 1)
    assert [(each.attempt, each.state) for each in drill.run.archived] == [(1, "FAILED"), (2, "FAILED"), (3, "FAILED")]


def test_always_run_tasks_run_at_the_end_of_every_job_attempt() -> None:
    drill = begun(task("a"), task("z", always_run=True), retry=2)
    drill.play({"a": [1, 1, 0]})
    assert drill.order == ["a", "z"] * 3


def test_a_job_retry_waits_for_its_delay() -> None:
    drill = begun(task("a"), task("b", after=["a"]), retry=RetryPolicy(limit=1, delay_s=60))
    drill.end("a")
    drill.end("b", 1)
    assert not drill.offered
    assert drill.timers["b"].delay_s == 60
    drill.play()
    assert drill.job.state == "COMPLETED"


def test_the_timeout_counts_each_attempt_by_itself() -> None:
    drill = begun(task("a"), retry=1, timeout_s=100)
    drill.wait(70)
    drill.end("a", 1)
    assert drill.watch is not None
    assert (drill.watch.job_attempt, drill.watch.delay_s) == (2, 100)


def test_the_pauses_of_the_last_attempt_do_not_count_in_the_next() -> None:
    drill = begun(task("a"), retry=1, timeout_s=100)
    drill.wait(30)
    drill.pause()
    drill.resume()
    drill.end("a", 1)
    assert (drill.job.attempt, drill.job.elapsed_s, drill.job.counting_since) == (2, 0, drill.now)


def test_a_timeout_is_retried_too_and_stopped_tasks_run_anew() -> None:
    drill = begun(task("a"), task("b"), retry=1)
    drill.end("a")
    drill.dispatch("b")
    drill.time_out()
    assert drill.stops == [("b", 1)]
    drill.finish("b", 143, "cancelled")
    drill.play()
    assert (drill.job.state, drill.order) == ("COMPLETED", ["a", "b", "b"])


def test_a_timer_of_the_last_job_attempt_is_ignored() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=9)), task("b"), retry=RetryPolicy(limit=1, delay_s=3))
    drill.end("a", 1)
    old = drill.timers["a"]
    drill.end("b", 1)
    assert drill.job.attempt == 2
    assert drill.feed(DelayElapsed(at=drill.now, task_no=0, attempt=old.attempt, job_attempt=1)) == []
    assert not drill.offered


def test_a_soft_restart_reuses_what_completed() -> None:
    drill = begun(task("a"), task("b", after=["a"]), task("z", always_run=True))
    drill.play({"b": 1})
    before = drill.order.copy()
    drill.restart()
    drill.play()
    assert drill.order[len(before) :] == ["b", "z"]
    assert (drill.job.state, drill.job.attempt, drill.job.error_code) == ("COMPLETED", 2, None)


def test_cells_tell_in_which_job_attempt_they_reached_their_state() -> None:
    drill = begun(task("a", on_failed=["h"]), task("b"), task("h"), retry=1)
    drill.play({"a": [1, 0]})
    assert drill.states == {"a": "COMPLETED", "b": "COMPLETED", "h": "SKIPPED"}
    assert [cell.job_attempt for cell in drill.run.tasks] == [2, 1, 2]


def test_a_restart_asks_for_a_new_claim_and_leaves_a_clean_pending_job() -> None:
    drill = begun(task("a"))
    drill.play({"a": 1})
    drill.run.job_changed = False
    assert drill.feed(RestartRequested(at=drill.now)) == [Requeue()]
    job_cell = drill.job
    assert (job_cell.state, job_cell.attempt, job_cell.started_at, job_cell.finished_at) == ("PENDING", 2, None, None)
    assert (job_cell.error_code, job_cell.error_message) == (None, None)
    assert drill.run.job_changed
    assert (drill.cell("a").state, drill.cell("a").error_code, drill.cell("a").attempt) == ("PENDING", None, 1)
    assert [each.attempt for each in drill.run.archived] == [1]


def test_a_restart_of_everything_runs_everything() -> None:
    drill = begun(task("a"), task("b", after=["a"]))
    drill.play()
    drill.restart(RestartMode.ALL)
    drill.play()
    assert drill.order == ["a", "b", "a", "b"]
    assert drill.cell("a").attempt == 2


def test_a_restart_from_a_task_runs_it_and_all_downstream() -> None:
    drill = begun(task("a"), task("b", after=["a"]), task("c", after=["b"]), task("d", after=["a"]))
    drill.play()
    drill.order.clear()
    drill.restart(from_task="b")
    drill.play()
    assert drill.order == ["b", "c"]
    assert drill.job.state == "COMPLETED"


def test_a_restart_gives_the_budgets_back() -> None:
    drill = begun(task("a"), retry=1)
    drill.play({"a": [1, 1]})
    assert drill.job.retries_used == 1
    drill.restart()
    drill.play({"a": [1, 0]})
    assert (drill.job.state, drill.job.attempt, drill.job.retries_used) == ("COMPLETED", 4, 1)


def test_tasks_that_only_the_stop_skipped_run_in_the_next_attempt() -> None:
    drill = begun(task("a"), task("b"), task("c", after=["b"]))
    drill.end("a", 1)
    assert drill.states == {"a": "FAILED", "b": "SKIPPED", "c": "SKIPPED"}
    drill.restart()
    drill.play()
    assert set(drill.states.values()) == {"COMPLETED"}


def test_a_cancelled_job_can_be_rebegun() -> None:
    drill = begun(task("a"), task("b", after=["a"]))
    drill.end("a")
    drill.cancel()
    drill.restart()
    drill.play()
    assert drill.order == ["a", "b"]
    assert drill.job.state == "COMPLETED"
