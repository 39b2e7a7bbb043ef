"""Exit codes mapped to tasks and special targets (rules 4 and 6 of the job language's flow)."""

import pytest

from formicary.model.definition import RetryPolicy
from formicary.model.states import TaskState
from formicary.states.commands import StopAttempt
from formicary.testing.drill import begun, task


def test_a_code_mapped_to_a_task_is_handled_at_once_without_retry() -> None:
    drill = begun(
        task("a", codes={"3": "q"}, on_completed=["b"], on_failed=["h"], retry=5), task("q"), task("b"), task("h")
    )
    drill.end("a", 3)
    assert list(drill.offered) == ["q"]
    assert (drill.cell("a").state, drill.cell("a").exit_code, drill.cell("a").error_code) == ("COMPLETED", 3, None)
    drill.play()
    assert drill.job.state == "COMPLETED"


def test_a_mapped_code_other_than_0_refuses_data_except_to_the_target() -> None:
    drill = begun(task("a", codes={"3": "q"}), task("q", after=["a"]), task("b"), task("d", after=["a", "b"]))
    drill.play({"a": 3})
    assert drill.states == {"a": "COMPLETED", "q": "COMPLETED", "b": "COMPLETED", "d": "SKIPPED"}


def test_exit_0_may_be_mapped_and_its_data_flows() -> None:
    drill = begun(task("a", codes={"0": "q"}, on_completed=["b"]), task("q"), task("b"), task("d", after=["a"]))
    drill.play()
    assert drill.states == {"a": "COMPLETED", "q": "COMPLETED", "b": "SKIPPED", "d": "COMPLETED"}


@pytest.mark.parametrize("reason", ["signalled", "timed_out", "out_of_memory", "cpu_time", "error"])
def test_only_a_plain_exit_is_looked_up_by_its_code(reason: str) -> None:
    drill = begun(task("a", codes={"137": "q"}), task("q"))
    drill.end("a", 137, reason)
    assert drill.states == {"a": "FAILED", "q": "SKIPPED"}


@pytest.mark.parametrize(
    ("reason", "code", "error_code", "says"),
    [
        ("exited", 4, "ERR_EXIT_CODE", "exit code 4; see its log"),
        ("signalled", 139, "ERR_SIGNAL", "signal 11"),
        ("timed_out", 143, "ERR_TASK_TIMEOUT", "timeout of 3600 s"),
        ("out_of_memory", 137, "ERR_OUT_OF_MEMORY", "memory limit"),
        ("cpu_time", 152, "ERR_CPU_TIME", "processor time"),
        ("error", None, "ERR_EXECUTOR", "ant's log"),
        ("cancelled", 143, "ERR_EXECUTOR", "nobody asked"),
    ],
)
def test_each_way_to_fail_has_its_code_and_sentence(reason: str, code: int | None, error_code: str, says: str) -> None:
    drill = begun(task("a"))
    drill.end("a", code, reason)
    assert drill.cell("a").error_code == error_code
    assert says in (drill.cell("a").error_message or "")
    assert (drill.job.state, drill.job.error_code) == ("FAILED", error_code)


def test_an_http_failure_speaks_of_the_status() -> None:
    drill = begun(task("a", method="HTTP_GET"))
    drill.end("a", 503)
    assert (drill.cell("a").error_message or "").startswith("HTTP status 503")


def test_fatal_stops_everything_without_retries_of_task_or_job() -> None:
    drill = begun(task("a", codes={"9": "FATAL"}, retry=3, on_failed=["h"]), task("b"), task("h"), retry=3)
    drill.dispatch("b")
    drill.end("a", 9)
    assert drill.stops == [("b", 1)]
    drill.finish("b", 143, "cancelled")
    assert drill.states == {"a": "FAILED", "b": "CANCELLED", "h": "SKIPPED"}
    assert (drill.job.state, drill.job.error_code, drill.job.attempt) == ("FAILED", "ERR_FATAL", 1)


def test_failed_overrides_success_and_its_edges_apply() -> None:
    drill = begun(task("a", codes={"0": "FAILED"}, on_failed=["h"], on_completed=["b"]), task("h"), task("b"))
    drill.play()
    assert drill.states == {"a": "FAILED", "h": "COMPLETED", "b": "SKIPPED"}


def test_completed_overrides_failure_and_its_edges_apply() -> None:
    drill = begun(task("a", codes={"5": "COMPLETED"}, on_completed=["b"], retry=2), task("b"), task("d", after=["a"]))
    drill.play({"a": 5})
    assert drill.states == {"a": "COMPLETED", "b": "COMPLETED", "d": "COMPLETED"}
    assert drill.order.count("a") == 1


def test_an_own_error_code_comes_after_the_retries() -> None:
    drill = begun(task("a", codes={"5": "ERR_NO_DATA"}, retry=1))
    drill.play({"a": [5, 5]})
    assert drill.order == ["a", "a"]
    assert (drill.cell("a").error_code, drill.job.error_code) == ("ERR_NO_DATA", "ERR_NO_DATA")


def test_restart_task_uses_up_a_retry_even_after_success() -> None:
    drill = begun(task("a", codes={"0": "RESTART_TASK"}, retry=1))
    drill.play()
    assert drill.order == ["a", "a"]
    assert drill.states["a"] == "FAILED"
    assert "all 1 were used" in (drill.cell("a").error_message or "")


def test_executing_polls_after_the_delay_until_another_code() -> None:
    drill = begun(task("a", codes={"75": "EXECUTING"}, retry=RetryPolicy(limit=5, delay_s=30)), task("b", after=["a"]))
    drill.end("a", 75)
    assert drill.timers["a"].delay_s == 30
    assert drill.cell("a").error_code is None
    drill.play({"a": [75, 0]})
    assert drill.order == ["a", "a", "a", "b"]
    assert (drill.cell("a").polls_used, drill.cell("a").retries_used) == (2, 0)


def test_polls_have_a_limit() -> None:
    drill = begun(task("a", codes={"75": "EXECUTING"}, retry=2))
    drill.play({"a": [75] * 9})
    assert drill.order == ["a"] * 3
    assert drill.states["a"] == "FAILED"


def test_pause_job_runs_the_task_again_on_resume() -> None:
    drill = begun(task("a", codes={"8": "PAUSE_JOB"}), task("b"))
    drill.end("a", 8)
    assert drill.job.state == "PAUSED"
    assert drill.cell("a").state is TaskState.PAUSED
    assert not drill.offered
    drill.resume()
    assert sorted(drill.offered) == ["a", "b"]
    drill.play()
    assert (drill.job.state, drill.cell("a").attempt, drill.cell("a").retries_used) == ("COMPLETED", 2, 0)


def test_restart_job_runs_all_tasks_anew_behind_the_always_run_tasks() -> None:
    drill = begun(
        task("a"), task("b", after=["a"], codes={"4": "RESTART_JOB"}), task("c"), task("z", always_run=True), retry=1
    )
    drill.end("a")
    drill.dispatch("c")
    drill.end("b", 4)
    assert drill.stops == [("c", 1)]
    drill.finish("c", 143, "cancelled")
    drill.play()
    assert drill.order == ["a", "c", "b", "z", "a", "c", "b", "z"]
    assert (drill.job.state, drill.job.attempt, drill.job.retries_used) == ("COMPLETED", 2, 1)


def test_restart_job_offers_nothing_before_its_end() -> None:
    drill = begun(
        task("a", codes={"4": "RESTART_JOB"}, on_completed=["j"]),
        task("b", on_completed=["j"]),
        task("c"),
        task("j"),
        retry=1,
    )
    drill.end("b")
    drill.dispatch("c")
    assert drill.end("a", 4) == [StopAttempt(2, 1)]


def test_restart_job_without_budget_fails_the_task() -> None:
    drill = begun(task("a", codes={"4": "RESTART_JOB"}, retry=3))
    drill.end("a", 4)
    assert drill.states["a"] == "FAILED"
    assert "no retry is configured" in (drill.job.error_message or "")


def test_a_state_word_may_map_to_a_special_target() -> None:
    drill = begun(task("a", codes={"FAILED": "FATAL"}, retry=3))
    drill.end("a", 1)
    assert (drill.job.state, drill.job.error_code) == ("FAILED", "ERR_FATAL")


def test_a_poll_that_the_stop_of_the_job_forbids_ends_cancelled() -> None:
    drill = begun(task("a", codes={"75": "EXECUTING"}, retry=9), task("b"))
    drill.dispatch("a")
    drill.end("b", 1)
    drill.finish("a", 75)
    assert drill.states == {"a": "CANCELLED", "b": "FAILED"}
