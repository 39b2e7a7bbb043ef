"""What goes into and comes out of the journal: rows as named tuples, in the order of their columns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from formicary.ids import JobId

Json = Any  # a JSON value


class JobRow(NamedTuple):
    """The mutable columns of a job, written whole (``jobs``, by id)."""

    id: str
    state: str
    attempt: int
    retries_used: int
    cancelling: bool
    stop_code: str | None
    stop_message: str | None
    elapsed_s: float
    counting_since: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    waiting_for: str | None
    ignores_memo: bool = False


class TaskRow(NamedTuple):
    """A row of ``tasks``, inserted or replaced whole; some columns are JSON texts."""

    job_id: str
    task_no: int
    state: str
    attempt: int
    job_attempt: int
    retries_used: int
    polls_used: int
    ants_lost: int
    is_excepted: bool
    epoch: int
    incarnation: str | None
    not_before: datetime | None
    exit_code: int | None
    error_code: str | None
    error_message: str | None
    outputs: str | None
    artifacts: str | None
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cache: str | None = None
    memo: str | None = None
    reused_from: str | None = None


class AttemptRow(NamedTuple):
    """A row of ``task_attempts``; inserted, ignored where it exists."""

    job_id: str
    task_no: int
    attempt: int
    job_attempt: int
    state: str
    incarnation: str | None
    exit_code: int | None
    error_code: str | None
    error_message: str | None
    outputs: str | None
    artifacts: str | None
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cache: str | None = None
    memo: str | None = None
    reused_from: str | None = None


class ArtifactRow(NamedTuple):
    """A row of ``artifacts``; inserted, ignored where it exists."""

    job_id: str
    task_no: int
    attempt: int
    name: str
    sha256: str
    size_bytes: int
    expires_at: datetime | None


class HistoryRow(NamedTuple):
    """A row of ``job_history``: a change of the job, or with ``task_type`` of this task of it."""

    job_id: str
    at: datetime
    state: str
    attempt: int
    error_code: str | None
    note: str | None
    task_type: str | None = None
    exit_code: int | None = None
    incarnation: str | None = None


class CommandDone(NamedTuple):
    """The end of a ``job_commands`` row; ``refusal`` is None where it was applied."""

    id: int
    refusal: str | None


class ShardMark(NamedTuple):
    """A shard that a batch touches: the epoch that must still hold, and the positions read so far (None: unchanged)."""

    shard: int
    epoch: int
    results_position: bytes | None = None
    launch_position: bytes | None = None


class JournalBatch(msgspec.Struct, kw_only=True):
    """Everything one batch commits, all or nothing.

    ``claims`` are jobs that this batch takes from PENDING, under the leader's epoch; each has a ``JobRow`` too.
    ``fresh`` are those of them that it submits first, as ``JobStore.insert`` does; one that makes no new job, because
    its key was used or its definition is not the newest, refuses the batch like a claim that no longer holds.
    ``running_deltas``: job type id -> change of ``running_count`` (+1 per claim, -1 per end). A positive change that
    would exceed ``max_concurrency`` refuses the batch like a claim that no longer holds.
    """

    shards: Sequence[ShardMark] = ()
    jobs: Sequence[JobRow] = ()
    tasks: Sequence[TaskRow] = ()
    attempts: Sequence[AttemptRow] = ()
    artifacts: Sequence[ArtifactRow] = ()
    history: Sequence[HistoryRow] = ()
    commands_done: Sequence[CommandDone] = ()
    claims: Sequence[JobId] = ()
    fresh: "Sequence[NewJob]" = ()
    leader_epoch: int | None = None
    running_deltas: dict[int, int] = {}


class JobRecord(NamedTuple):
    """A job as a queen loads it: at the scheduler's claim (``tasks`` empty when ``attempt`` is 1) or at a take-over."""

    id: JobId
    job_type_id: int
    job_type: str
    definition_id: str
    version: int
    shard: int
    state: str
    priority: int
    created_at: datetime
    user_name: str | None
    params: str
    rendered_source: str | None
    attempt: int
    retries_used: int
    cancelling: bool
    stop_code: str | None
    stop_message: str | None
    elapsed_s: float
    counting_since: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    ignores_memo: bool = False
    labels: str = "{}"
    scheduled_at: datetime | None = None


class CommandRow(NamedTuple):
    """An open ``job_commands`` row; ``body`` is a JSON text."""

    id: int
    job_id: JobId
    shard: int
    kind: str
    body: str


class LeaseRow(NamedTuple):
    """A lease as it stands; ``is_live`` by the database's clock."""

    name: str
    shard: int | None
    owner: str | None
    owner_incarnation: str | None
    epoch: int
    is_live: bool
    results_position: bytes | None
    launch_position: bytes | None


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A submission, validated; ``idempotency_key`` and ``body_sha256`` go together.

    ``expects_newest``: to be inserted only while ``definition_id`` is still the newest of its job type.
    """

    id: JobId
    job_type_id: int
    definition_id: str
    shard: int
    priority: int
    due_at: datetime
    scheduled_at: datetime | None
    created_at: datetime
    user_name: str | None
    params: str
    labels: str
    rendered_source: str | None
    idempotency_key: str | None = None
    body_sha256: str | None = None
    expects_newest: bool = False
