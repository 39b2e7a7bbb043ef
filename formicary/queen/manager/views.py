"""A job as people see it, composed of its row, its definition and the rows of its tasks."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from formicary.ids import Incarnation, ant_of
from formicary.model.definition import JobDefinition
from formicary.model.jobs import ArtifactRef, CacheRecord, JobView, ReusedFrom, TaskView
from formicary.model.states import TERMINAL_JOB_STATES, TaskState
from formicary.store.rows import AttemptRow, TaskRow

_OUTPUTS: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_CACHE = msgspec.json.Decoder(CacheRecord)
_REUSED = msgspec.json.Decoder(ReusedFrom)
_ARTIFACTS = msgspec.json.Decoder(tuple[ArtifactRef, ...])


def untouched(definition: JobDefinition) -> tuple[TaskView, ...]:
    """Returns the tasks of a job of which nothing ran yet."""
    return tuple(TaskView(task_type=task.task_type, state=TaskState.PENDING) for task in definition.tasks)


def with_tasks(
    job: JobView, pending: tuple[TaskView, ...], rows: Iterable[TaskRow], waits: Mapping[int, str]
) -> JobView:
    """Returns ``job`` with every task of its definition (``pending``), in order."""
    has_ended = job.state in TERMINAL_JOB_STATES
    views = list(pending)
    if has_ended:
        views = [TaskView(task_type=view.task_type, state=TaskState.SKIPPED) for view in views]
    for row in rows:
        if row.task_no < len(views):
            views[row.task_no] = _task(views[row.task_no].task_type, row, has_ended)
    if not has_ended:
        _explain(views, waits)
    return msgspec.structs.replace(job, tasks=tuple(views))


def _task(task_type: str, row: TaskRow, has_ended: bool) -> TaskView:
    state = TaskState(row.state)
    if state is TaskState.PENDING and has_ended:
        state = TaskState.SKIPPED
    return TaskView(
        task_type=task_type,
        state=state,
        exit_code=row.exit_code,
        attempt=row.attempt,
        ant_id=None if row.incarnation is None else ant_of(Incarnation(row.incarnation)) or None,
        error_code=row.error_code,
        error_message=row.error_message,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outputs={} if row.outputs is None else _OUTPUTS.decode(row.outputs),
        artifacts=artifacts(row),
        waiting_for=_retry(state, row.not_before),
        retries_used=row.retries_used,
        cache=None if row.cache is None else _CACHE.decode(row.cache),
        reused_from=None if row.reused_from is None else _REUSED.decode(row.reused_from),
    )


def artifacts(row: TaskRow | AttemptRow) -> tuple[ArtifactRef, ...]:
    """Returns what an attempt left, as its row says."""
    return () if row.artifacts is None else _ARTIFACTS.decode(row.artifacts)


def _retry(state: TaskState, not_before: datetime | None) -> str | None:
    if state is not TaskState.PENDING or not_before is None:
        return None
    return f"its next run is due at {not_before.isoformat(timespec='seconds')}"


def _explain(views: list[TaskView], waits: Mapping[int, str]) -> None:
    for number, reason in waits.items():
        if number < len(views) and views[number].state in (TaskState.PENDING, TaskState.READY):
            views[number] = msgspec.structs.replace(views[number], waiting_for=reason)
