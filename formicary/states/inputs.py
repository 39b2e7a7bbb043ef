"""What can happen to a running job: the inputs of ``JobRun.step``. All times are values, aware UTC."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from formicary.ids import Incarnation
from formicary.model.jobs import ArtifactRef, CacheRecord, ReusedFrom

Json = Any  # a JSON value


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """Root of the inputs; ``at`` is when the owner took notice."""

    at: datetime


class TaskInput(Input, frozen=True, kw_only=True):
    """Something about one attempt. Ignored unless ``attempt`` is the task's current one."""

    task_no: int
    attempt: int


class JobBegan(Input, frozen=True, kw_only=True):
    """The owner starts a READY job. ``skip`` is the value of ``skip_if``.

    With an ``error_code`` the job can never run (its ``skip_if`` cannot be rendered): it fails at once.
    """

    skip: bool = False
    error_code: str | None = None
    error_message: str | None = None


class AttemptDispatched(Input, frozen=True, kw_only=True):
    """An ant was chosen for a runnable task: its ``attempt`` rises by one. ``memo``: what its result is kept under."""

    task_no: int
    incarnation: Incarnation
    epoch: int
    memo: str | None = None


class TaskReused(Input, frozen=True, kw_only=True):
    """An earlier run of a runnable task had equal inputs: its result is taken, and ``attempt`` rises by one."""

    task_no: int
    source: ReusedFrom
    exit_code: int | None
    outputs: dict[str, Json] | None = None
    artifacts: tuple[ArtifactRef, ...] = ()


class TaskExcepted(Input, frozen=True, kw_only=True):
    """The ``except`` of a runnable task is true: it is skipped and counts as passed."""

    task_no: int


class TaskRefused(Input, frozen=True, kw_only=True):
    """A runnable task can never be dispatched (template error, bad values): it fails without retry."""

    task_no: int
    error_code: str
    error_message: str


class AttemptStarted(TaskInput, frozen=True, kw_only=True):
    """The ant runs the attempt."""

    started_at: datetime


class AttemptFinished(TaskInput, frozen=True, kw_only=True):
    """The ant reports the end. ``error_code`` is None for a plain exit; ``reason`` as in ``TaskFinished``."""

    reason: str
    exit_code: int | None
    is_success: bool
    started_at: datetime | None
    finished_at: datetime
    error_code: str | None = None
    error_message: str | None = None
    outputs: dict[str, Json] | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    cache: CacheRecord | None = None


class AttemptDeclined(TaskInput, frozen=True, kw_only=True):
    """The attempt does not run and never will; the task is runnable again at no cost."""

    incarnation: Incarnation
    reason: str


class AttemptLost(TaskInput, frozen=True, kw_only=True):
    """The attempt is known not to run any more, its result unknown.

    ``counts`` is False where the owner itself was cut off: then it does not count towards ``ERR_ANT_LOST``.
    """

    counts: bool = True


class DelayElapsed(Input, frozen=True, kw_only=True):
    """A retry or poll is due. ``job_attempt`` and ``attempt`` name what it was set for; later ones ignore it."""

    task_no: int
    attempt: int
    job_attempt: int


class JobTimedOut(Input, frozen=True, kw_only=True):
    """The job's timeout is over for this job attempt."""

    job_attempt: int


class CancelRequested(Input, frozen=True, kw_only=True):
    """A person cancels; the second time stops ``always_run`` tasks too."""

    reason: str = "cancelled"


class PauseRequested(Input, frozen=True, kw_only=True):
    """A person pauses."""


class ResumeRequested(Input, frozen=True, kw_only=True):
    """A person resumes."""


class RestartMode(StrEnum):
    """How much of an ended job runs anew."""

    FAILED = "failed"
    ALL = "all"


class RestartRequested(Input, frozen=True, kw_only=True):
    """A person restarts an ended job; ``from_task`` (a task number) wins over ``mode``."""

    mode: RestartMode = RestartMode.FAILED
    from_task: int | None = None
