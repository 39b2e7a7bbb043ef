"""Edges: what starts together, what joins, what is skipped (rules 2 to 5 of the job language's flow)."""

from formicary.states.commands import EndJob, MakeRunnable, WatchTimeout
from formicary.states.inputs import JobBegan
from formicary.testing.drill import Drill, begun, job, task


def test_tasks_without_incoming_edges_start_together() -> None:
    drill = Drill(job([task("a"), task("b"), task("c", after=["a"]), task("z", always_run=True)], timeout_s=60))
    assert drill.begin() == [WatchTimeout(1, 60), MakeRunnable(0), MakeRunnable(1)]


def test_a_job_without_tasks_completes_at_once() -> None:
    drill = begun()
    assert drill.job.state == "COMPLETED"
    assert drill.is_over


def test_a_chain_runs_in_order_and_completes() -> None:
    drill = begun(task("a", on_completed=["b"]), task("b"), task("c", after=["b"]))
    drill.play()
    assert drill.order == ["a", "b", "c"]
    assert drill.job.state == "COMPLETED"
    assert drill.job.finished_at == drill.now


def test_a_join_waits_for_all_of_its_edges() -> None:
    drill = begun(task("a"), task("b"), task("j", after=["a", "b"]))
    drill.end("a")
    assert list(drill.offered) == ["b"]
    drill.end("b")
    assert list(drill.offered) == ["j"]


def test_a_join_after_an_exclusive_branch_works_by_control_edges() -> None:
    drill = begun(
        task("a", codes={"3": "x"}, on_completed=["y"]),
        task("x", on_completed=["j"]),
        task("y", on_completed=["j"]),
        task("j"),
    )
    drill.play({"a": 3})
    assert drill.states == {"a": "COMPLETED", "x": "COMPLETED", "y": "SKIPPED", "j": "COMPLETED"}
    assert drill.job.state == "COMPLETED"


def test_a_join_after_an_exclusive_branch_works_by_data_edges() -> None:
    drill = begun(task("a", codes={"0": "x", "3": "y"}), task("x"), task("y"), task("j", after=["x", "y"]))
    drill.play()
    assert drill.states == {"a": "COMPLETED", "x": "COMPLETED", "y": "SKIPPED", "j": "COMPLETED"}


def test_a_branch_not_taken_is_skipped_to_its_end() -> None:
    drill = begun(task("a", on_failed=["h"]), task("h", on_completed=["i"]), task("i"), task("k", after=["i"]))
    drill.end("a")
    assert drill.states == {"a": "COMPLETED", "h": "SKIPPED", "i": "SKIPPED", "k": "SKIPPED"}
    assert drill.job.state == "COMPLETED"


def test_one_failed_task_ends_the_job_failed_and_names_itself() -> None:
    drill = begun(task("a"), task("b", after=["a"]))
    drill.end("a", 7)
    assert drill.states == {"a": "FAILED", "b": "SKIPPED"}
    assert (drill.job.state, drill.job.error_code) == ("FAILED", "ERR_EXIT_CODE")
    assert drill.job.error_message is not None
    assert drill.job.error_message.startswith('task "a" failed: exit code 7; ')


def test_after_an_unhandled_failure_nothing_new_starts_and_running_tasks_finish() -> None:
    drill = begun(task("a"), task("b"), task("c", after=["b"]), task("d"))
    drill.dispatch("b")
    drill.end("a", 1)
    assert not drill.offered  # d was withdrawn
    assert not drill.stops
    drill.finish("b")
    assert drill.states == {"a": "FAILED", "b": "COMPLETED", "c": "SKIPPED", "d": "SKIPPED"}
    assert drill.job.state == "FAILED"


def test_a_failure_in_a_stopping_job_is_not_retried() -> None:
    drill = begun(task("a"), task("b", retry=3))
    drill.dispatch("b")
    drill.end("a", 1)
    drill.finish("b", 1)
    assert (drill.cell("b").state, drill.cell("b").retries_used) == ("FAILED", 0)
    assert not drill.run.archived


def test_of_several_handled_failures_the_first_in_time_is_named_after_a_crash_too() -> None:
    drill = begun(task("a", on_failed=["h"]), task("b", on_failed=["h"]), task("h"))
    drill.end("b", 2)
    drill.wait(1)
    drill.end("a", 1)
    drill.crash()
    drill.play()
    assert (drill.job.error_message or "").startswith('task "b" failed')


def test_a_join_of_a_failed_and_a_completed_task_does_not_run() -> None:
    drill = begun(task("a", on_completed=["j"]), task("b", on_completed=["j"]), task("j"))
    drill.end("b")
    drill.end("a", 1)
    assert drill.states["j"] == "SKIPPED"


def test_fail_fast_stops_what_runs() -> None:
    drill = begun(task("a"), task("b"), fail_fast=True)
    drill.dispatch("b")
    drill.end("a", 1)
    assert drill.stops == [("b", 1)]
    drill.finish("b", 143, "cancelled")
    assert drill.states == {"a": "FAILED", "b": "CANCELLED"}
    assert drill.job.state == "FAILED"


def test_a_success_that_comes_before_the_stop_is_recorded_and_nothing_follows() -> None:
    drill = begun(task("a"), task("b"), task("c", after=["b"]), fail_fast=True)
    drill.dispatch("b")
    drill.end("a", 1)
    drill.finish("b")
    assert drill.states == {"a": "FAILED", "b": "COMPLETED", "c": "SKIPPED"}


def test_on_failed_branches_and_the_job_still_ends_failed() -> None:
    drill = begun(task("a", on_failed=["h"], on_completed=["b"]), task("h"), task("b"), task("c"))
    drill.end("a", 1)
    assert sorted(drill.offered) == ["c", "h"]
    drill.play()
    assert drill.states == {"a": "FAILED", "h": "COMPLETED", "b": "SKIPPED", "c": "COMPLETED"}
    assert drill.job.state == "FAILED"
    assert drill.job.error_code == "ERR_EXIT_CODE"


def test_nothing_runs_on_the_data_of_a_failed_task_but_its_own_handler() -> None:
    drill = begun(task("a", on_failed=["h"]), task("h", after=["a"]), task("b"), task("d", after=["a", "b"]))
    drill.play({"a": 1})
    assert drill.states == {"a": "FAILED", "h": "COMPLETED", "b": "COMPLETED", "d": "SKIPPED"}


def test_a_handler_that_takes_its_tasks_data_does_not_run_after_success() -> None:
    drill = begun(task("a", on_failed=["h"]), task("h", after=["a"]), task("b", after=["a"]))
    drill.play()
    assert drill.states == {"a": "COMPLETED", "h": "SKIPPED", "b": "COMPLETED"}


def test_allow_failure_goes_the_way_of_completion_and_its_data_is_used() -> None:
    drill = begun(task("a", allow_failure=True, on_completed=["b"]), task("b"), task("d", after=["a"]))
    drill.play({"a": 1})
    assert drill.states == {"a": "FAILED", "b": "COMPLETED", "d": "COMPLETED"}
    assert drill.job.state == "COMPLETED"


def test_allow_failure_with_a_handler_goes_to_the_handler() -> None:
    drill = begun(
        task("a", allow_failure=True, on_completed=["b"], on_failed=["h"]), task("b"), task("h"), task("d", after=["a"])
    )
    drill.play({"a": 1})
    assert drill.states == {"a": "FAILED", "b": "SKIPPED", "h": "COMPLETED", "d": "COMPLETED"}
    assert drill.job.state == "COMPLETED"


def test_several_keys_may_name_the_same_target() -> None:
    drill = begun(
        task("a", on_completed=["b"], on_failed=["b"], codes={"3": "b", "COMPLETED": "b"}), task("b", after=["a"])
    )
    drill.play({"a": 3})
    assert drill.states == {"a": "COMPLETED", "b": "COMPLETED"}


def test_the_words_of_on_exit_code_mean_the_states_edges() -> None:
    definition = [task("a", codes={"COMPLETED": "b", "FAILED": "h"}), task("b"), task("h")]
    good, bad = begun(*definition), begun(*definition)
    good.play()
    bad.play({"a": 1})
    assert good.states == {"a": "COMPLETED", "b": "COMPLETED", "h": "SKIPPED"}
    assert bad.states == {"a": "FAILED", "b": "SKIPPED", "h": "COMPLETED"}


def test_an_excepted_task_is_skipped_and_counts_as_passed() -> None:
    drill = begun(task("a", on_completed=["b"]), task("b"), task("d", after=["a"]))
    drill.except_("a")
    drill.play()
    assert drill.states == {"a": "SKIPPED", "b": "COMPLETED", "d": "COMPLETED"}
    assert drill.cell("a").is_excepted
    assert drill.job.state == "COMPLETED"


def test_skip_if_completes_the_job_and_skips_every_task() -> None:
    drill = Drill(job([task("a"), task("b", after=["a"]), task("z", always_run=True)]))
    assert drill.begin(skip=True) == [EndJob()]
    assert set(drill.states.values()) == {"SKIPPED"}
    assert drill.job.state == "COMPLETED"


def test_a_job_that_can_never_run_fails_at_once_without_retry() -> None:
    drill = Drill(job([task("a"), task("z", always_run=True)], retry=3))
    bad = JobBegan(at=drill.now, error_code="ERR_TEMPLATE", error_message="no such variable")
    assert drill.feed(bad) == [EndJob()]
    assert (drill.job.state, drill.job.error_code, drill.job.attempt) == ("FAILED", "ERR_TEMPLATE", 1)
    assert set(drill.states.values()) == {"SKIPPED"}


def test_a_task_that_cannot_be_rendered_fails_without_retry() -> None:
    drill = begun(task("a", retry=3))
    drill.refuse("a")
    assert (drill.cell("a").state, drill.cell("a").error_code, drill.cell("a").attempt) == ("FAILED", "ERR_TEMPLATE", 0)
    assert drill.job.error_code == "ERR_TEMPLATE"
    assert not drill.run.archived


class TestAlwaysRun:
    def test_runs_last_one_after_the_other_in_definition_order(self) -> None:
        drill = begun(task("z", always_run=True), task("a"), task("y", always_run=True))
        drill.end("a")
        assert list(drill.offered) == ["z"]
        drill.play()
        assert drill.order == ["a", "z", "y"]
        assert drill.job.state == "COMPLETED"

    def test_runs_after_a_failure(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.play({"a": 1})
        assert drill.states == {"a": "FAILED", "z": "COMPLETED"}
        assert drill.job.state == "FAILED"

    def test_a_failure_turns_completed_into_failed_and_the_others_still_run(self) -> None:
        drill = begun(task("a"), task("y", always_run=True), task("z", always_run=True))
        drill.play({"y": 1})
        assert drill.states == {"a": "COMPLETED", "y": "FAILED", "z": "COMPLETED"}
        assert drill.job.state == "FAILED"
        assert 'task "y"' in (drill.job.error_message or "")

    def test_a_failure_does_not_change_another_reason(self) -> None:
        drill = begun(task("a"), task("z", always_run=True))
        drill.play({"a": 1, "z": 2})
        assert 'task "a"' in (drill.job.error_message or "")

    def test_an_allowed_failure_changes_nothing(self) -> None:
        drill = begun(task("a"), task("z", always_run=True, allow_failure=True))
        drill.play({"z": 1})
        assert drill.job.state == "COMPLETED"

    def test_retries_on_its_own_account(self) -> None:
        drill = begun(task("a"), task("z", always_run=True, retry=1))
        drill.play({"a": 1, "z": [1, 0]})
        assert drill.order == ["a", "z", "z"]
        assert drill.states["z"] == "COMPLETED"

    def test_may_stand_alone(self) -> None:
        drill = begun(task("z", always_run=True))
        drill.play()
        assert drill.job.state == "COMPLETED"

    def test_may_take_data_and_be_named_as_handler_without_waiting(self) -> None:
        drill = begun(
            task("a", on_failed=["z"]), task("b", on_completed=["z"]), task("z", always_run=True, after=["a"])
        )
        drill.play({"a": 1})
        assert drill.order == ["a", "b", "z"]
        assert drill.job.state == "FAILED"
