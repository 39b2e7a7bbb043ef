"""Recovery from the cells alone: what is outstanding comes again, and nothing else."""

from formicary.model.definition import RetryPolicy
from formicary.states.commands import MakeRunnable, StopAttempt, WakeAfter, WatchTimeout
from formicary.testing.drill import Drill, begun, job, task


def test_what_is_runnable_is_offered_and_what_is_under_way_is_left_alone() -> None:
    drill = begun(task("a"), task("b"), task("c", after=["a"]), task("d", after=["b"]), timeout_s=100)
    drill.end("a")
    drill.dispatch("b")
    drill.wait(30)
    assert drill.crash() == [MakeRunnable(2), WatchTimeout(1, 70)]
    drill.finish("b")
    drill.play()
    assert drill.job.state == "COMPLETED"
    assert drill.cell("b").attempt == 1


def test_a_delay_goes_on_with_its_rest() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=50)))
    drill.end("a", 1)
    drill.wait(20)
    assert WakeAfter(0, 1, 1, 30) in drill.crash()


def test_a_delay_that_is_over_makes_runnable_at_once() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=50)))
    drill.end("a", 1)
    drill.wait(60)
    assert MakeRunnable(0) in drill.crash()


def test_a_clock_that_was_ahead_makes_neither_a_delay_nor_a_timeout_longer() -> None:
    drill = begun(task("a", retry=RetryPolicy(limit=1, delay_s=50)), task("b"), timeout_s=100)
    drill.end("a", 1)
    drill.wait(-1000)
    commands = drill.crash()
    assert WakeAfter(0, 1, 1, 50) in commands
    assert WatchTimeout(1, 100) in commands


def test_attempts_that_shall_stop_are_asked_again() -> None:
    drill = begun(task("a"), task("z", always_run=True))
    drill.dispatch("a")
    drill.cancel()
    assert drill.crash() == [StopAttempt(0, 1)]
    drill.finish("a", 143, "cancelled")
    assert list(drill.offered) == ["z"]


def test_a_fail_fast_goes_on() -> None:
    drill = begun(task("a"), task("b"), task("c"), fail_fast=True)
    drill.dispatch("b")
    drill.end("a", 1)
    commands = drill.crash()
    assert StopAttempt(1, 1) in commands
    assert not any(isinstance(command, MakeRunnable) for command in commands)


def test_a_second_cancel_is_remembered() -> None:
    drill = begun(task("y", always_run=True), task("z", always_run=True))
    drill.dispatch("y")
    drill.cancel()
    drill.cancel()
    assert drill.crash() == [StopAttempt(0, 1)]
    drill.finish("y", 143, "cancelled")
    assert (drill.job.state, drill.states) == ("CANCELLED", {"y": "CANCELLED", "z": "SKIPPED"})


def test_what_a_cancelled_task_held_up_is_skipped_already() -> None:
    drill = begun(task("a"), task("b"), task("c", after=["a"]))
    drill.dispatch("a")
    drill.dispatch("b")
    drill.cancel()
    drill.finish("a", 143, "cancelled")
    assert drill.states["c"] == "SKIPPED"
    drill.crash()
    assert not drill.run.changed_tasks


def test_the_cleaning_goes_on_where_it_was() -> None:
    drill = begun(task("a"), task("y", always_run=True), task("z", always_run=True))
    drill.end("a")
    drill.end("y")
    assert drill.crash() == [MakeRunnable(2)]
    drill.dispatch("z")
    assert drill.crash() == []
    drill.finish("z")
    assert drill.job.state == "COMPLETED"


def test_a_paused_job_starts_nothing_before_its_resume() -> None:
    drill = begun(task("a", codes={"8": "PAUSE_JOB"}), task("b"))
    drill.end("a", 8)
    assert drill.crash() == []
    drill.resume()
    assert sorted(drill.offered) == ["a", "b"]


def test_a_paused_cleaning_goes_on_at_its_resume() -> None:
    drill = begun(task("a"), task("z", always_run=True, retry=RetryPolicy(limit=1, delay_s=9)))
    drill.end("a")
    drill.end("z", 1)
    drill.pause()
    drill.crash()
    drill.resume()
    drill.play()
    assert (drill.job.state, drill.order) == ("COMPLETED", ["a", "z", "z"])


def test_a_job_that_waits_for_its_start_needs_nothing() -> None:
    drill = Drill(job([task("a")]))
    assert drill.crash() == []
    drill.begin()
    assert list(drill.offered) == ["a"]


def test_the_second_job_attempt_is_recovered_as_such() -> None:
    drill = begun(task("a"), task("b", after=["a"]), task("c", after=["a"]), retry=1)
    drill.end("a")
    drill.end("b", 1)
    drill.crash()
    assert list(drill.offered) == ["b", "c"]
    drill.play()
    assert (drill.job.state, drill.job.attempt) == ("COMPLETED", 2)
