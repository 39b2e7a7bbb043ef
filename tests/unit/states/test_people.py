"""Pause, resume, cancel and the job's timeout (rule 10 of the job language's flow)."""

import pytest

from formicary.model.definition import RetryPolicy
from formicary.states.commands import EndJob, MakeRunnable, StopAttempt, WatchTimeout, Withdraw
from formicary.states.errors import RefusedError
from formicary.testing.drill import Drill, begun, job, task


class TestPause:
    def test_starts_nothing_new_and_running_tasks_finish(self) -> None:
        drill = begun(task("a"), task("b"), task("c", after=["a"]))
        drill.dispatch("a")
        assert drill.pause() == [Withdraw(1)]
        assert drill.finish("a") == []
        assert drill.states == {"a": "COMPLETED", "b": "PENDING", "c": "PENDING"}
        assert drill.job.state == "PAUSED"
        assert set(drill.resume()) >= {MakeRunnable(1), MakeRunnable(2)}
        drill.play()
        assert drill.job.state == "COMPLETED"

    def test_holds_the_timeout_still(self) -> None:
        drill = begun(task("a"), timeout_s=100)
        drill.wait(30)
        drill.pause()
        assert (drill.job.elapsed_s, drill.job.counting_since) == (30, None)
        drill.wait(1000)
        assert WatchTimeout(1, 70) in drill.resume()
        drill.wait(20)
        drill.pause()
        assert drill.job.elapsed_s == 50

    def test_a_late_timeout_does_not_count(self) -> None:
        drill = begun(task("a"))
        drill.pause()
        assert drill.time_out() == []

    def test_also_holds_retries_that_fall_due(self) -> None:
        drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=5)))
        drill.end("a", 1)
        drill.pause()
        assert drill.wake("a") == []
        drill.resume()
        assert list(drill.offered) == ["a"]

    def test_the_end_of_the_last_task_waits_for_the_resume(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.dispatch("a")
        drill.pause()
        drill.finish("a")
        assert (drill.job.state, list(drill.offered)) == ("PAUSED", [])
        drill.resume()
        assert list(drill.offered) == ["z"]

    def test_a_failure_during_a_pause_ends_the_job_on_resume(self) -> None:
        drill = begun(task("a"), task("b"))
        drill.dispatch("a")
        drill.pause()
        drill.finish("a", 1)
        assert drill.job.state == "PAUSED"
        assert drill.resume()[-1] == EndJob()
        assert drill.job.state == "FAILED"

    def test_is_refused_twice_and_while_cancelling(self) -> None:
        drill = begun(task("a"))
        drill.dispatch("a")
        drill.pause()
        with pytest.raises(RefusedError, match="paused already"):
            drill.pause()
        drill.cancel()
        with pytest.raises(RefusedError, match="being cancelled"):
            drill.pause()


class TestCancel:
    def test_stops_what_runs_and_runs_always_run(self) -> None:
        drill = begun(task("a"), task("b"), task("c", after=["a"]), task("z", always_run=True))
        drill.dispatch("a")
        assert drill.cancel("cancelled by ann") == [Withdraw(1), StopAttempt(0, 1)]
        assert drill.job.cancelling
        drill.finish("a", 143, "cancelled")
        assert list(drill.offered) == ["z"]
        drill.play()
        assert drill.states == {"a": "CANCELLED", "b": "SKIPPED", "c": "SKIPPED", "z": "COMPLETED"}
        assert (drill.job.state, drill.job.error_code) == ("CANCELLED", "ERR_CANCELLED")
        assert (drill.job.error_message, drill.job.cancelling) == ("cancelled by ann", False)

    def test_a_second_cancel_stops_always_run_too(self) -> None:
        drill = begun(task("a"), task("y", always_run=True), task("z", always_run=True))
        drill.cancel()
        drill.dispatch("y")
        assert drill.cancel() == [StopAttempt(1, 1)]
        drill.finish("y", 143, "cancelled")
        assert drill.states == {"a": "SKIPPED", "y": "CANCELLED", "z": "SKIPPED"}
        assert drill.job.state == "CANCELLED"

    def test_a_second_cancel_withdraws_what_was_only_offered(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.cancel()
        assert drill.cancel() == [Withdraw(1), EndJob()]

    @pytest.mark.parametrize("end", ["decline", "lose"])
    def test_an_attempt_that_does_not_run_any_more_ends_cancelled(self, end: str) -> None:
        drill = begun(task("a"))
        drill.dispatch("a")
        drill.cancel()
        getattr(drill, end)("a")
        assert drill.states["a"] == "CANCELLED"
        assert drill.is_over

    def test_works_before_the_start_and_runs_nothing(self) -> None:
        drill = Drill(job([task("a"), task("z", always_run=True)]))
        assert drill.cancel() == [EndJob()]
        assert drill.job.state == "CANCELLED"
        assert set(drill.states.values()) == {"SKIPPED"}

    def test_works_while_paused(self) -> None:
        drill = begun(task("a", codes={"8": "PAUSE_JOB"}), task("b"), task("z", always_run=True))
        drill.end("a", 8)
        drill.cancel()
        assert list(drill.offered) == ["z"]
        drill.play()
        assert drill.states == {"a": "CANCELLED", "b": "SKIPPED", "z": "COMPLETED"}
        assert drill.job.state == "CANCELLED"

    def test_while_an_always_run_task_has_paused_the_job_runs_it_again(self) -> None:
        drill = begun(task("z", always_run=True, codes={"8": "PAUSE_JOB"}))
        drill.end("z", 8)
        assert drill.job.state == "PAUSED"
        drill.cancel()
        drill.play()
        assert (drill.job.state, drill.states, drill.order) == ("CANCELLED", {"z": "COMPLETED"}, ["z", "z"])

    def test_leaves_no_way_to_pause_for_a_task(self) -> None:
        drill = begun(task("z", always_run=True, codes={"8": "PAUSE_JOB"}))
        drill.cancel()
        drill.end("z", 8)
        assert (drill.job.state, drill.states) == ("CANCELLED", {"z": "CANCELLED"})

    def test_a_task_that_waits_for_a_retry_keeps_its_failure(self) -> None:
        drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=60)))
        drill.end("a", 2)
        drill.cancel()
        assert (drill.cell("a").state, drill.cell("a").exit_code) == ("FAILED", 2)
        assert drill.job.state == "CANCELLED"

    def test_beats_timeout_and_failure_and_allows_no_retry(self) -> None:
        drill = begun(task("a"), task("b"), retry=3)
        drill.dispatch("a")
        drill.dispatch("b")
        drill.finish("a", 1)
        drill.time_out()
        drill.cancel()
        drill.finish("b", 1)
        assert (drill.job.state, drill.job.attempt) == ("CANCELLED", 1)
        assert drill.job.error_message == "cancelled by ann"

    def test_during_always_run_lets_it_finish(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.end("a")
        drill.dispatch("z")
        assert drill.cancel() == []
        drill.finish("z")
        assert (drill.states["z"], drill.job.state) == ("COMPLETED", "CANCELLED")


class TestTimeout:
    def test_stops_what_runs_and_fails_the_job(self) -> None:
        drill = begun(task("a"), task("b", after=["a"]), task("z", always_run=True), timeout_s=60)
        drill.dispatch("a")
        assert drill.time_out() == [StopAttempt(0, 1)]
        drill.finish("a", 143, "cancelled")
        drill.play()
        assert drill.states == {"a": "CANCELLED", "b": "SKIPPED", "z": "COMPLETED"}
        assert (drill.job.state, drill.job.error_code) == ("FAILED", "ERR_JOB_TIMEOUT")
        assert "timeout of 60 s" in (drill.job.error_message or "")

    def test_beats_an_earlier_failure(self) -> None:
        drill = begun(task("a"), task("b"))
        drill.dispatch("b")
        drill.end("a", 1)
        drill.time_out()
        drill.finish("b", 143, "cancelled")
        assert drill.job.error_code == "ERR_JOB_TIMEOUT"

    def test_does_not_touch_always_run(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.end("a")
        drill.dispatch("z")
        assert drill.time_out() == []
        drill.finish("z")
        assert drill.job.state == "COMPLETED"
