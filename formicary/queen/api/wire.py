"""The JSON of the API: the field names of the model, with times as RFC 3339 in UTC with microseconds.

The command line prints the same documents.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from formicary.clock import time_text
from formicary.errors import Problem
from formicary.model.definition import DefinitionRecord
from formicary.model.jobs import AntView, ArtifactRef, CacheRecord, JobView, LogLine, ReusedFrom, TaskView, WorkersView

Json = Any  # a JSON value

encode = msgspec.json.Encoder().encode


class CacheJson(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task's cache as JSON; see ``CacheRecord``."""

    key: str
    result: str
    restored_key: str | None
    restored_bytes: int | None
    stored_bytes: int | None
    problem: str | None


class ArtifactJson(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as JSON; see ``ArtifactRef``. ``is_expired``: it cannot be downloaded any more."""

    name: str
    sha256: str
    size_bytes: int
    folder: str | None
    is_executable: bool
    expires_at: str | None
    is_expired: bool


class TaskJson(msgspec.Struct, frozen=True, kw_only=True):
    """A task as JSON; see ``TaskView``."""

    task_type: str
    state: str
    exit_code: int | None
    attempt: int
    ant_id: str | None
    error_code: str | None
    error_message: str | None
    started_at: str | None
    finished_at: str | None
    outputs: dict[str, Json]
    artifacts: tuple[ArtifactJson, ...]
    waiting_for: str | None
    retries_used: int
    cache: CacheJson | None
    reused_from: ReusedFrom | None


class JobJson(msgspec.Struct, frozen=True, kw_only=True):
    """A job as JSON; see ``JobView``. Items of listings and batches have no ``tasks``."""

    id: str
    job_type: str
    version: int
    state: str
    error_code: str | None
    error_message: str | None
    attempt: int
    params: dict[str, Json]
    priority: int
    labels: dict[str, str]
    created_at: str
    scheduled_at: str | None
    started_at: str | None
    finished_at: str | None
    waiting_for: str | None
    retries_used: int
    cancelling: bool
    tasks: tuple[TaskJson, ...] | msgspec.UnsetType = msgspec.UNSET


class DefinitionJson(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a definition as JSON; ``source`` is its YAML, left out of listings."""

    id: str
    job_type: str
    version: int
    created_at: str
    source: str | msgspec.UnsetType = msgspec.UNSET


class AntJson(msgspec.Struct, frozen=True, kw_only=True):
    """An ant as JSON; see ``AntView``."""

    id: str
    incarnation: str
    methods: tuple[str, ...]
    tags: tuple[str, ...]
    slots: int
    running: int
    last_heartbeat_at: str
    workers: tuple[WorkersView, ...]


class LogLineJson(msgspec.Struct, frozen=True, kw_only=True):
    """A line of output as JSON; see ``LogLine``."""

    task_type: str
    attempt: int
    seq: int
    stream: str
    at: str
    text: str
    arrival: int


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a listing; ``next_cursor`` is None on the last."""

    items: Sequence[JobJson | DefinitionJson | AntJson]
    next_cursor: str | None = None


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An error by RFC 9457; ``code`` is stable, ``errors`` lists single mistakes."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: tuple[Problem, ...] | msgspec.UnsetType = msgspec.UNSET


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each item of a batch, in order."""

    items: Sequence[JobJson | ProblemDocument]


def job_json(job: JobView) -> JobJson:
    """Returns a job for the wire; ``tasks`` is left out where the view has none."""
    return JobJson(
        id=job.id,
        job_type=job.job_type,
        version=job.version,
        state=job.state,
        error_code=job.error_code,
        error_message=job.error_message,
        attempt=job.attempt,
        params=job.params,
        priority=job.priority,
        labels=job.labels,
        created_at=time_text(job.created_at),
        scheduled_at=_optional(job.scheduled_at),
        started_at=_optional(job.started_at),
        finished_at=_optional(job.finished_at),
        waiting_for=job.waiting_for,
        retries_used=job.retries_used,
        cancelling=job.cancelling,
        tasks=msgspec.UNSET if job.tasks is None else tuple([_task(task) for task in job.tasks]),
    )


def item_json(job: JobView) -> JobJson:
    """Returns a job for the wire without its tasks."""
    return job_json(job if job.tasks is None else msgspec.structs.replace(job, tasks=None))


def definition_json(record: DefinitionRecord, *, with_source: bool) -> DefinitionJson:
    """Returns a definition for the wire."""
    return DefinitionJson(
        id=record.id,
        job_type=record.job_type,
        version=record.version,
        created_at=time_text(record.created_at),
        source=record.source if with_source else msgspec.UNSET,
    )


def ant_json(ant: AntView) -> AntJson:
    """Returns an ant for the wire."""
    return AntJson(
        id=ant.id,
        incarnation=ant.incarnation,
        methods=ant.methods,
        tags=ant.tags,
        slots=ant.slots,
        running=ant.running,
        last_heartbeat_at=time_text(ant.last_heartbeat_at),
        workers=ant.workers,
    )


def json_lines(lines: Sequence[LogLine]) -> bytes:
    """Returns lines of output as JSON Lines."""
    return b"".join([encode(_line(line)) + b"\n" for line in lines])


def _line(line: LogLine) -> LogLineJson:
    return LogLineJson(
        task_type=line.task_type,
        attempt=line.attempt,
        seq=line.seq,
        stream=line.stream,
        at=time_text(line.at),
        text=line.text,
        arrival=line.arrival,
    )


def _artifact(ref: ArtifactRef) -> ArtifactJson:
    return ArtifactJson(
        name=ref.name,
        sha256=ref.sha256,
        size_bytes=ref.size_bytes,
        folder=ref.folder,
        is_executable=ref.is_executable,
        expires_at=_optional(ref.expires_at),
        is_expired=ref.is_expired,
    )


def _task(task: TaskView) -> TaskJson:
    return TaskJson(
        task_type=task.task_type,
        state=task.state,
        exit_code=task.exit_code,
        attempt=task.attempt,
        ant_id=task.ant_id,
        error_code=task.error_code,
        error_message=task.error_message,
        started_at=_optional(task.started_at),
        finished_at=_optional(task.finished_at),
        outputs=task.outputs,
        artifacts=tuple(map(_artifact, task.artifacts)),
        waiting_for=task.waiting_for,
        retries_used=task.retries_used,
        cache=None if task.cache is None else _cache(task.cache),
        reused_from=task.reused_from,
    )


def _cache(record: CacheRecord) -> CacheJson:
    return CacheJson(
        key=record.key,
        result=record.result,
        restored_key=record.restored_key,
        restored_bytes=record.restored_bytes,
        stored_bytes=record.stored_bytes,
        problem=record.problem,
    )


def _optional(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)
