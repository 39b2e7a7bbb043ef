"""The life of a job: what each input means to a job in each state.

As in ``task.py``: ``RULES`` hold the pure functions, ``IGNORED`` what comes late, ``ILLEGAL`` what only a defect brings
about; ``REFUSED`` holds people's commands that do not fit, with the sentence that they get. Every pair is in exactly
one of the four.
"""

from collections.abc import Callable, Set
from enum import IntEnum

from formicary.model.states import ErrorCode, JobState
from formicary.states.cells import JobCell
from formicary.states.errors import RefusedError
from formicary.states.inputs import (
    CancelRequested,
    Input,
    JobBegan,
    JobTimedOut,
    PauseRequested,
    RestartRequested,
    ResumeRequested,
)

#: ``JobCell.stop_code`` of an attempt that a task's exit code asked to restart; never a job's error code.
RESTART_JOB = "RESTART_JOB"


class Step(IntEnum):
    """What becomes of the job."""

    NOTHING = 0
    BEGIN = 1
    SKIP = 2
    PAUSE = 3
    RESUME = 4
    CANCEL = 5  # always_run tasks still run
    CANCEL_AT_ONCE = 6
    DROP = 7  # cancelled before it began
    TIME_OUT = 8
    RESTART = 9
    REFUSE = 10  # it can never run


Rule = Callable[[JobCell, Input], Step]


def begin(job: JobCell, event: Input) -> Step:
    """The owner starts it; with a true ``skip_if`` it is over at once, and so it is where it can never run."""
    assert isinstance(event, JobBegan)
    if event.error_code is not None:
        return Step.REFUSE
    return Step.SKIP if event.skip else Step.BEGIN


def cancel(job: JobCell, event: Input) -> Step:
    """The first time lets ``always_run`` tasks run, the second does not."""
    return Step.CANCEL_AT_ONCE if job.cancelling else Step.CANCEL


def drop(job: JobCell, event: Input) -> Step:
    """Nothing ran, so nothing is to be cleaned up."""
    return Step.DROP


def pause(job: JobCell, event: Input) -> Step:
    """A job that is being cancelled cannot wait."""
    if job.cancelling:
        raise RefusedError("the job is being cancelled; it cannot be paused")
    return Step.PAUSE


def resume(job: JobCell, event: Input) -> Step:
    """It goes on."""
    return Step.RESUME


def time_out(job: JobCell, event: Input) -> Step:
    """A cancel beats it, a FATAL has stopped everything already, and an earlier attempt's timer is late."""
    assert isinstance(event, JobTimedOut)
    is_over = job.cancelling or job.stop_code in {ErrorCode.JOB_TIMEOUT, ErrorCode.FATAL}
    return Step.NOTHING if is_over or event.job_attempt != job.attempt else Step.TIME_OUT


def restart(job: JobCell, event: Input) -> Step:
    """An ended job starts its next attempt."""
    return Step.RESTART


_S = JobState

RULES: dict[tuple[JobState, type[Input]], Rule] = {
    (_S.PENDING, CancelRequested): drop,
    (_S.READY, JobBegan): begin,
    (_S.READY, CancelRequested): drop,
    (_S.EXECUTING, JobTimedOut): time_out,
    (_S.EXECUTING, CancelRequested): cancel,
    (_S.EXECUTING, PauseRequested): pause,
    (_S.PAUSED, CancelRequested): cancel,
    (_S.PAUSED, ResumeRequested): resume,
    (_S.COMPLETED, RestartRequested): restart,
    (_S.FAILED, RestartRequested): restart,
    (_S.CANCELLED, RestartRequested): restart,
}

IGNORED: Set[tuple[JobState, type[Input]]] = {
    (_S.EXECUTING, JobBegan),
    (_S.PAUSED, JobBegan),
    (_S.PENDING, JobTimedOut),
    (_S.READY, JobTimedOut),
    (_S.PAUSED, JobTimedOut),
    (_S.COMPLETED, JobTimedOut),
    (_S.FAILED, JobTimedOut),
    (_S.CANCELLED, JobTimedOut),
}

_NOT_YET = "the job has not started yet; it can be cancelled"
_ENDED = "the job has ended; it can be restarted"

REFUSED: dict[tuple[JobState, type[Input]], str] = {
    (_S.PENDING, PauseRequested): _NOT_YET,
    (_S.PENDING, ResumeRequested): "the job is not paused; it waits for its start",
    (_S.PENDING, RestartRequested): "the job waits for its start; only an ended job can be restarted",
    (_S.READY, PauseRequested): _NOT_YET,
    (_S.READY, ResumeRequested): "the job is not paused; it is about to start",
    (_S.READY, RestartRequested): "the job is about to start; only an ended job can be restarted",
    (_S.EXECUTING, ResumeRequested): "the job is not paused",
    (_S.EXECUTING, RestartRequested): "the job is still running; cancel it first, or wait for its end",
    (_S.PAUSED, PauseRequested): "the job is paused already",
    (_S.PAUSED, RestartRequested): "the job is paused; resume or cancel it: only an ended job can be restarted",
    (_S.COMPLETED, CancelRequested): _ENDED,
    (_S.COMPLETED, PauseRequested): _ENDED,
    (_S.COMPLETED, ResumeRequested): _ENDED,
    (_S.FAILED, CancelRequested): _ENDED,
    (_S.FAILED, PauseRequested): _ENDED,
    (_S.FAILED, ResumeRequested): _ENDED,
    (_S.CANCELLED, CancelRequested): _ENDED,
    (_S.CANCELLED, PauseRequested): _ENDED,
    (_S.CANCELLED, ResumeRequested): _ENDED,
}

ILLEGAL: Set[tuple[JobState, type[Input]]] = {
    (_S.PENDING, JobBegan),
    (_S.COMPLETED, JobBegan),
    (_S.FAILED, JobBegan),
    (_S.CANCELLED, JobBegan),
    # approvals are not part of the language yet
    (_S.MANUAL_APPROVAL_REQUIRED, JobBegan),
    (_S.MANUAL_APPROVAL_REQUIRED, JobTimedOut),
    (_S.MANUAL_APPROVAL_REQUIRED, CancelRequested),
    (_S.MANUAL_APPROVAL_REQUIRED, PauseRequested),
    (_S.MANUAL_APPROVAL_REQUIRED, ResumeRequested),
    (_S.MANUAL_APPROVAL_REQUIRED, RestartRequested),
}
