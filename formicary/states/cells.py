"""The mutable state of one job and of its tasks, owned by one ``JobRun``.

A cell's fields are what the store keeps; everything else about a job's progress is derived from them.
"""

from datetime import datetime
from typing import Any, NamedTuple

from formicary.ids import Incarnation, JobId
from formicary.model.jobs import ArtifactRef, CacheRecord, ReusedFrom
from formicary.model.states import JobState, TaskState

Json = Any  # a JSON value


class Left(NamedTuple):
    """What an attempt left behind, to be kept."""

    task_no: int
    attempt: int
    artifacts: tuple[ArtifactRef, ...]


class TaskCell:
    """One task of a job. Times are aware UTC.

    Attributes:
        no: index of the task in its definition.
        attempt: dispatches and reuses so far; never resets. The current one while READY or EXECUTING.
        retries_used, polls_used, ants_lost: counted within the present job attempt.
        job_attempt: the job attempt in which the present state was reached; older = reused.
        not_before: a retry or poll is due then; None when nothing is awaited.
        incarnation, epoch: where and by which epoch the current attempt was dispatched; between two, the place alone,
            unless no earlier attempt binds the task to it.
        is_first_there: no earlier attempt bound the current one to its place. Known to the queen that dispatched it;
            another one takes it for bound.
        is_excepted: SKIPPED by ``except``, which counts as passed.
        error_code: a failure's code, given also while a retry of it is awaited.
        error_message: the same as a sentence; also that an attempt was lost, until a later one ends by itself.
        memo: what the current attempt's result is kept under for others; None where it is not.
        reused_from: the run whose result this is; None where it ran itself.
    """

    __slots__ = (
        "ants_lost",
        "artifacts",
        "attempt",
        "cache",
        "dispatched_at",
        "epoch",
        "error_code",
        "error_message",
        "exit_code",
        "finished_at",
        "incarnation",
        "is_excepted",
        "is_first_there",
        "job_attempt",
        "memo",
        "no",
        "not_before",
        "outputs",
        "polls_used",
        "retries_used",
        "reused_from",
        "started_at",
        "state",
    )

    def __init__(self, no: int) -> None:
        self.no = no
        self.state = TaskState.PENDING
        self.attempt = 0
        self.retries_used = 0
        self.polls_used = 0
        self.ants_lost = 0
        self.job_attempt = 1
        self.not_before: datetime | None = None
        self.incarnation: Incarnation | None = None
        self.epoch = 0
        self.is_excepted = False
        self.is_first_there = False
        self.exit_code: int | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.outputs: dict[str, Json] | None = None
        self.artifacts: tuple[ArtifactRef, ...] = ()
        self.cache: CacheRecord | None = None
        self.memo: str | None = None
        self.reused_from: ReusedFrom | None = None
        self.dispatched_at: datetime | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None

    def snapshot(self) -> "TaskCell":
        """Returns a copy of the present values."""
        copy = TaskCell.__new__(TaskCell)
        for name in TaskCell.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy


class JobCell:
    """A job.

    Attributes:
        attempt: job attempts so far, from 1.
        retries_used: job retries (``retry`` and RESTART_JOB) since the job was submitted or restarted by a person.
        ignores_memo: it was restarted hard: its tasks run, whatever earlier runs there are.
        cancelling: a cancel was accepted; ``always_run`` tasks may still run.
        stop_code, stop_message: why nothing new starts in this attempt although the job goes on (an unhandled
            failure, FATAL, the job's timeout): what the job will end with.
        elapsed_s: seconds of this attempt that its timeout counted before ``counting_since``; pauses are left out.
        counting_since: the timeout runs since then, by the wall clock, for another queen, on another machine, may go on
            with it; None while paused or before the start.
    """

    __slots__ = (
        "attempt",
        "cancelling",
        "counting_since",
        "elapsed_s",
        "error_code",
        "error_message",
        "finished_at",
        "id",
        "ignores_memo",
        "retries_used",
        "started_at",
        "state",
        "stop_code",
        "stop_message",
    )

    def __init__(self, job_id: JobId) -> None:
        self.id = job_id
        self.state = JobState.READY
        self.attempt = 1
        self.retries_used = 0
        self.cancelling = False
        self.ignores_memo = False
        self.stop_code: str | None = None
        self.stop_message: str | None = None
        self.elapsed_s = 0.0
        self.counting_since: datetime | None = None
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
