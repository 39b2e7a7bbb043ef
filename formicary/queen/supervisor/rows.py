"""Between cells and the store's rows."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from formicary.ids import Incarnation, JobId
from formicary.model.jobs import ArtifactRef, CacheRecord, JobView, ReusedFrom
from formicary.model.states import TERMINAL_JOB_STATES, JobState, TaskState
from formicary.states.cells import JobCell, Left, TaskCell
from formicary.store.jobs import StoredJob
from formicary.store.rows import ArtifactRow, AttemptRow, HistoryRow, JobRecord, JobRow, TaskRow

if TYPE_CHECKING:
    from formicary.queen.supervisor.live import LiveJob

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict).decode
_decode_cache = msgspec.json.Decoder(CacheRecord).decode
_decode_reused = msgspec.json.Decoder(ReusedFrom).decode
_decode_artifacts = msgspec.json.Decoder(tuple[ArtifactRef, ...]).decode


def storable(text: str | None) -> str | None:
    """Returns a text without what Postgres refuses: a sentence that quotes a bad value must not fail the commit."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def task_row(job_id: JobId, cell: TaskCell) -> TaskRow:
    """Returns the row that keeps a task's cell."""
    return TaskRow(
        job_id,
        cell.no,
        cell.state,
        cell.attempt,
        cell.job_attempt,
        cell.retries_used,
        cell.polls_used,
        cell.ants_lost,
        cell.is_excepted,
        cell.epoch,
        cell.incarnation,
        cell.not_before,
        cell.exit_code,
        cell.error_code,
        storable(cell.error_message),
        _encode(cell.outputs).decode() if cell.outputs else None,
        _encode(cell.artifacts).decode() if cell.artifacts else None,
        cell.dispatched_at,
        cell.started_at,
        cell.finished_at,
        _encode(cell.cache).decode() if cell.cache is not None else None,
        cell.memo,
        _encode(cell.reused_from).decode() if cell.reused_from is not None else None,
    )


def attempt_row(job_id: JobId, cell: TaskCell) -> AttemptRow:
    """Returns the history row of an ended attempt."""
    return AttemptRow(
        job_id,
        cell.no,
        cell.attempt,
        cell.job_attempt,
        cell.state,
        cell.incarnation,
        cell.exit_code,
        cell.error_code,
        storable(cell.error_message),
        _encode(cell.outputs).decode() if cell.outputs else None,
        _encode(cell.artifacts).decode() if cell.artifacts else None,
        cell.dispatched_at,
        cell.started_at,
        cell.finished_at,
        _encode(cell.cache).decode() if cell.cache is not None else None,
        cell.memo,
        _encode(cell.reused_from).decode() if cell.reused_from is not None else None,
    )


def artifact_rows(job_id: JobId, left: Iterable[Left]) -> Iterator[ArtifactRow]:
    """Yields the rows by which what attempts left is kept in the artifact store."""
    for task_no, attempt, artifacts in left:
        for ref in artifacts:
            yield ArtifactRow(job_id, task_no, attempt, ref.name, ref.sha256, ref.size_bytes, ref.expires_at)


def stored_end(live: "LiveJob") -> StoredJob | None:
    """Returns a job that has ended as it is stored, with its tasks; None where it goes on."""
    record, cell = live.record, live.run.job
    if cell.state not in TERMINAL_JOB_STATES:
        return None
    view = JobView(
        id=record.id,
        job_type=record.job_type,
        version=record.version,
        state=cell.state,
        error_code=cell.error_code,
        error_message=storable(cell.error_message),
        attempt=cell.attempt,
        params=_decode_object(record.params),
        priority=record.priority,
        labels=_decode_object(record.labels),
        created_at=record.created_at,
        scheduled_at=record.scheduled_at,
        started_at=cell.started_at,
        finished_at=cell.finished_at,
        retries_used=cell.retries_used,
        cancelling=cell.cancelling,
    )
    return StoredJob(
        view=view,
        definition_id=record.definition_id,
        shard=record.shard,
        rendered_source=record.rendered_source,
        tasks=[task_row(record.id, task) for task in live.run.tasks if task.state != TaskState.PENDING or task.attempt],
    )


def task_changes(live: "LiveJob", now: datetime) -> list[HistoryRow]:
    """Returns the history rows of a job's tasks that changed: ended attempts first, then the present states."""
    tasks = live.program.definition.tasks
    if live.recorded_tasks is None:
        live.recorded_tasks = {}
    rows: list[HistoryRow] = []
    for cell in (*live.run.archived, *(live.run.tasks[number] for number in live.run.changed_tasks)):
        if live.recorded_tasks.get(cell.no) != (cell.state, cell.attempt):
            live.recorded_tasks[cell.no] = (cell.state, cell.attempt)
            rows.append(_task_change(live.id, tasks[cell.no].task_type, cell, now))
    return rows


def _task_change(job_id: JobId, task_type: str, cell: TaskCell, now: datetime) -> HistoryRow:
    return HistoryRow(
        job_id,
        now,
        cell.state,
        cell.attempt,
        cell.error_code,
        storable(cell.error_message),
        task_type,
        cell.exit_code,
        cell.incarnation,
    )


def job_row(cell: JobCell, waiting_for: str | None) -> JobRow:
    """Returns the row that keeps a job's cell."""
    return JobRow(
        cell.id,
        cell.state,
        cell.attempt,
        cell.retries_used,
        cell.cancelling,
        cell.stop_code,
        storable(cell.stop_message),
        cell.elapsed_s,
        cell.counting_since,
        cell.started_at,
        cell.finished_at,
        cell.error_code,
        storable(cell.error_message),
        waiting_for if cell.finished_at is None else None,
        cell.ignores_memo,
    )


def job_cell(record: JobRecord) -> JobCell:
    """Returns the cell that a loaded job's record keeps."""
    cell = JobCell(record.id)
    cell.state = JobState(record.state)
    cell.attempt = record.attempt
    cell.retries_used = record.retries_used
    cell.cancelling = record.cancelling
    cell.stop_code = record.stop_code
    cell.stop_message = record.stop_message
    cell.elapsed_s = record.elapsed_s
    cell.counting_since = record.counting_since
    cell.started_at = record.started_at
    cell.finished_at = record.finished_at
    cell.error_code = record.error_code
    cell.error_message = record.error_message
    cell.ignores_memo = record.ignores_memo
    return cell


def task_cells(size: int, rows: Iterable[TaskRow]) -> list[TaskCell]:
    """Returns the cells of all tasks of a job: those with a row from it, the others untouched."""
    cells = [TaskCell(number) for number in range(size)]
    for row in rows:
        _fill(cells[row.task_no], row)
    return cells


def _fill(cell: TaskCell, row: TaskRow) -> None:
    cell.state = TaskState(row.state)
    cell.attempt = row.attempt
    cell.job_attempt = row.job_attempt
    cell.retries_used = row.retries_used
    cell.polls_used = row.polls_used
    cell.ants_lost = row.ants_lost
    cell.is_excepted = row.is_excepted
    cell.epoch = row.epoch
    cell.incarnation = Incarnation(row.incarnation) if row.incarnation is not None else None
    cell.not_before = row.not_before
    cell.exit_code = row.exit_code
    cell.error_code = row.error_code
    cell.error_message = row.error_message
    cell.outputs = _decode_object(row.outputs) if row.outputs else None
    cell.artifacts = _decode_artifacts(row.artifacts) if row.artifacts else ()
    cell.cache = _decode_cache(row.cache) if row.cache else None
    cell.memo = row.memo
    cell.reused_from = _decode_reused(row.reused_from) if row.reused_from else None
    cell.dispatched_at = row.dispatched_at
    cell.started_at = row.started_at
    cell.finished_at = row.finished_at
