"""The tables are complete: every pair of state and input has exactly one place."""

import pytest

from formicary.model.states import JobState, TaskState
from formicary.states import inputs, job, task
from formicary.states.errors import IllegalTransitionError, RefusedError
from formicary.testing.drill import Drill
from formicary.testing.drill import job as job_of
from formicary.testing.drill import task as task_of

TASK_INPUTS = [
    inputs.AttemptDispatched,
    inputs.TaskExcepted,
    inputs.TaskReused,
    inputs.TaskRefused,
    inputs.AttemptStarted,
    inputs.AttemptFinished,
    inputs.AttemptDeclined,
    inputs.AttemptLost,
    inputs.DelayElapsed,
]
JOB_INPUTS = [
    inputs.JobBegan,
    inputs.JobTimedOut,
    inputs.CancelRequested,
    inputs.PauseRequested,
    inputs.ResumeRequested,
    inputs.RestartRequested,
]


def test_every_input_belongs_to_exactly_one_table() -> None:
    known = {
        each
        for each in vars(inputs).values()
        if isinstance(each, type) and issubclass(each, inputs.Input) and each not in {inputs.Input, inputs.TaskInput}
    }
    assert known == {*TASK_INPUTS, *JOB_INPUTS}


@pytest.mark.parametrize("kind", TASK_INPUTS)
@pytest.mark.parametrize("state", TaskState)
def test_every_task_state_and_input_is_in_exactly_one_place(state: TaskState, kind: type[inputs.Input]) -> None:
    places = [(state, kind) in table for table in (task.RULES, task.IGNORED, task.ILLEGAL)]
    assert sum(places) == 1


@pytest.mark.parametrize("kind", JOB_INPUTS)
@pytest.mark.parametrize("state", JobState)
def test_every_job_state_and_input_is_in_exactly_one_place(state: JobState, kind: type[inputs.Input]) -> None:
    places = [(state, kind) in table for table in (job.RULES, job.IGNORED, job.REFUSED, job.ILLEGAL)]
    assert sum(places) == 1


def test_an_illegal_input_raises_with_the_story_and_changes_nothing() -> None:
    drill = Drill(job_of([task_of("a")]))
    drill.begin()
    drill.dispatch("a")
    with pytest.raises(IllegalTransitionError) as caught:
        drill.dispatch("a")
    assert 'task "a" is READY and cannot take AttemptDispatched' in str(caught.value)
    assert "job READY JobBegan, a PENDING AttemptDispatched" in str(caught.value)
    assert drill.cell("a").attempt == 1


def test_a_task_that_was_not_offered_cannot_be_dispatched() -> None:
    drill = Drill(job_of([task_of("a"), task_of("b", after=["a"])]))
    drill.begin()
    with pytest.raises(IllegalTransitionError):
        drill.dispatch("b")
    assert drill.states == {"a": "PENDING", "b": "PENDING"}


def test_an_ended_job_cannot_begin() -> None:
    drill = Drill(job_of([]))
    drill.begin()
    with pytest.raises(IllegalTransitionError):
        drill.begin()


def test_a_command_that_does_not_fit_is_refused_with_a_sentence() -> None:
    drill = Drill(job_of([task_of("a")]))
    drill.begin()
    with pytest.raises(RefusedError, match="still running; cancel it first"):
        drill.feed(inputs.RestartRequested(at=drill.now))
    with pytest.raises(RefusedError, match="not paused"):
        drill.resume()
