"""Jobs and tasks as the outside sees them: the JSON of ``GET /api/v1/jobs/{id}``, field by field."""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from formicary.ids import AntId, JobId
from formicary.model.states import JobState, TaskState

Json = Any  # a JSON value


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stored file. ``name`` is its path relative to the working directory (``result/…`` for the result folder).

    With ``folder`` it is the archive of that folder. ``is_executable``: its owner could execute it, and can again where
    it is fetched. ``expires_at`` is set by the owner of the job; ``is_expired``: the store may not have it any more.
    """

    name: str
    sha256: str
    size_bytes: int
    folder: str | None = None
    is_executable: bool = False
    expires_at: datetime | None = None
    is_expired: bool = False


class CacheResult(StrEnum):
    """What an attempt found of its cache."""

    HIT = "hit"
    RESTORED = "restored"
    MISS = "miss"


class CacheRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the cache of an attempt; sizes are those of the packed archives.

    ``restored_key`` is ``key`` in a hit, and where ``result`` is ``restored`` the key that a restore key led to.
    ``stored_bytes`` is None where nothing was stored. ``problem`` says why it could not be restored or stored.
    """

    key: str
    result: CacheResult
    restored_key: str | None = None
    restored_bytes: int | None = None
    stored_bytes: int | None = None
    problem: str | None = None


class ReusedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Whose result was taken instead of running."""

    job_id: JobId
    task_type: str
    attempt: int


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task of a job; ``attempt`` counts its dispatches and the results it took from elsewhere, 0 if never run."""

    task_type: str
    state: TaskState
    exit_code: int | None = None
    attempt: int = 0
    ant_id: AntId | None = None
    error_code: str | None = None
    error_message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    outputs: dict[str, Json] = {}
    artifacts: tuple[ArtifactRef, ...] = ()
    waiting_for: str | None = None
    retries_used: int = 0
    cache: CacheRecord | None = None
    reused_from: ReusedFrom | None = None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job; ``tasks`` is None in listings."""

    id: JobId
    job_type: str
    version: int
    state: JobState
    error_code: str | None = None
    error_message: str | None = None
    attempt: int = 1
    params: dict[str, Json] = {}
    priority: int = 0
    labels: dict[str, str] = {}
    created_at: datetime
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    waiting_for: str | None = None
    retries_used: int = 0
    cancelling: bool = False
    tasks: tuple[TaskView, ...] | None = None


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /api/v1/jobs``; an item of a batch may carry its own ``idempotency_key``."""

    job_type: str
    version: int | None = None
    params: dict[str, Json] = {}
    priority: int | None = None
    scheduled_at: datetime | None = None
    labels: dict[str, str] = {}
    idempotency_key: str | None = None


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a task's output, without its line end; ``seq`` counts from 1 per attempt.

    ``arrival`` rises with each line of a job: to read on behind a line, its arrival is all that must be kept.
    """

    task_type: str
    attempt: int
    seq: int
    stream: str
    at: datetime
    text: str
    arrival: int = 0


class WorkersView(msgspec.Struct, frozen=True):
    """What remote workers that are connected to an ant take: tasks of these methods that ask for no other tags."""

    methods: tuple[str, ...]
    tags: tuple[str, ...]


class AntView(msgspec.Struct, frozen=True, kw_only=True):
    """A live ant as the queens see it."""

    id: AntId
    incarnation: str
    methods: tuple[str, ...]
    tags: tuple[str, ...]
    slots: int
    running: int
    last_heartbeat_at: datetime
    workers: tuple[WorkersView, ...] = ()
