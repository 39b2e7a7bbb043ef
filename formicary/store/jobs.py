"""Job requests as the manager sees them: submit, read, list, and change while nobody has claimed them."""

import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from formicary.errors import InvalidInputError, Problem
from formicary.ids import JobId
from formicary.model.jobs import JobView
from formicary.model.states import ErrorCode, JobState
from formicary.store.database import Database, Record, columns
from formicary.store.rows import AttemptRow, HistoryRow, NewJob, TaskRow

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

_SUBMIT = f"SELECT job_id, outcome FROM submit_jobs({', '.join(f'${number}' for number in range(1, 16))})"

_COLUMNS = (
    "j.id::text, d.job_type, d.version, j.state, j.error_code, j.error_message, j.attempt, j.params, "
    "j.priority, j.labels, j.created_at, j.scheduled_at, j.started_at, j.finished_at, j.waiting_for, j.retries_used, "
    "j.cancelling, j.definition_id::text, j.shard, j.rendered_source"
)
_SOURCE = "FROM jobs j JOIN definitions d ON d.id = j.definition_id"
_VIEW = f"SELECT {_COLUMNS} {_SOURCE}"
_TASK_COLUMNS = ", ".join(TaskRow._fields[1:])
SELECT_TASKS = f"SELECT job_id::text, {_TASK_COLUMNS} FROM tasks"
_VIEW_WITH_TASKS = f"""
SELECT {_COLUMNS}, CASE WHEN $2 OR j.finished_at IS NOT NULL THEN
    ARRAY(SELECT ROW(job_id::text, {_TASK_COLUMNS}) FROM tasks WHERE job_id = j.id ORDER BY task_no) END AS tasks
{_SOURCE} WHERE j.id = $1::uuid"""
_SET_WAITING = """
WITH changed AS (
    SELECT j.id, u.reason FROM unnest($1::uuid[], $2::text[]) AS u (id, reason) JOIN jobs j ON j.id = u.id
    WHERE j.state = 'PENDING' AND j.waiting_for IS DISTINCT FROM u.reason
    FOR NO KEY UPDATE OF j SKIP LOCKED)
UPDATE jobs SET waiting_for = changed.reason FROM changed WHERE jobs.id = changed.id"""


class InsertOutcome(StrEnum):
    """What became of a submission."""

    CREATED = "CREATED"
    EXISTING = "EXISTING"
    KEY_CONFLICT = "KEY_CONFLICT"
    STALE = "STALE"


class Inserted(NamedTuple):
    """The answer to one ``NewJob``: ``job_id`` is its own where it was created, else the first job of its key."""

    job_id: JobId
    outcome: InsertOutcome


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job, and what is needed to find its tasks: those that ever left PENDING are in ``tasks``, where read along."""

    view: JobView
    definition_id: str
    shard: int
    rendered_source: str | None
    tasks: Sequence[TaskRow] | None = None


class PendingChange(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a command to an unclaimed job took effect, and the state found before it; None: no such job."""

    is_applied: bool
    found: JobState | None


class JobStore:
    """The table ``jobs``, and what hangs on it.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Takes submissions in one round trip and one commit; repeating a call after a lost answer is safe.

        Returns:
            One answer a job, in order. STALE: ``expects_newest``, and its definition is not the newest any more.

        Raises:
            DataRefusedError: a value cannot be stored; nothing was written.
        """
        if not jobs:
            return []
        rows = await self._database.fetch(_SUBMIT, *submission(jobs))
        return [Inserted(JobId(row["job_id"]), InsertOutcome(row["outcome"])) for row in rows]

    async def get(self, job_id: JobId) -> StoredJob | None:
        """Returns a job without its tasks."""
        row = await self._database.fetch_one(f"{_VIEW} WHERE j.id = $1::uuid", job_id)
        return None if row is None else _stored(row, None)

    async def get_with_tasks(self, job_id: JobId, *, only_if_ended: bool = False) -> StoredJob | None:
        """Returns a job with its tasks by number, in one round trip; of one that has not ended without, where asked."""
        row = await self._database.fetch_one(_VIEW_WITH_TASKS, job_id, not only_if_ended)
        if row is None:
            return None
        tasks = None if row["tasks"] is None else [TaskRow(*task) for task in row["tasks"]]
        return _stored(row, tasks)

    async def attempts(self, job_id: JobId) -> list[AttemptRow]:
        """Returns the former attempts of a job's tasks, by task and attempt."""
        rows = await self._database.fetch(
            f"SELECT job_id::text, {', '.join(AttemptRow._fields[1:])} FROM task_attempts "
            "WHERE job_id = $1::uuid ORDER BY task_no, attempt",
            job_id,
        )
        return [AttemptRow(*row.values()) for row in rows]

    async def history(self, job_id: JobId) -> list[HistoryRow]:
        """Returns the changes of a job's state, in order, without those of its tasks."""
        rows = await self._database.fetch(
            "SELECT job_id::text, at, state, attempt, error_code, note FROM job_history "
            "WHERE job_id = $1::uuid AND task_type IS NULL ORDER BY seq",
            job_id,
        )
        return [HistoryRow(*row.values()) for row in rows]

    async def list(
        self, state: JobState | None, job_type: str | None, limit: int, cursor: str | None
    ) -> tuple[list[JobView], str | None]:
        """Returns a page of jobs, newest first, and the cursor of the next page.

        The cursor is the last id of the page: jobs submitted meanwhile move nothing.

        Raises:
            InvalidInputError: the cursor is none of ours.
        """
        if cursor is not None:
            _check_cursor(cursor)
        conditions = [
            ("j.state = $%d", state),
            ("j.job_type_id = (SELECT id FROM job_types WHERE group_id = 'default' AND job_type = $%d)", job_type),
            ("j.id < $%d::uuid", cursor),
        ]
        asked = [(sql, value) for sql, value in conditions if value is not None]
        where = " AND ".join(sql % number for number, (sql, _) in enumerate(asked, 2)) or "true"
        rows = await self._database.fetch(
            f"{_VIEW} WHERE {where} ORDER BY j.id DESC LIMIT $1", limit + 1, *(value for _, value in asked)
        )
        items = [_view(row) for row in rows[:limit]]
        return items, items[-1].id if len(rows) > limit else None

    async def change_pending(self, job_id: JobId, kind: str, note: str) -> PendingChange:
        """Applies ``cancel``, ``pause`` or ``resume`` to a job that no queen has claimed, with its history.

        Takes the row lock that a claim takes: either this or the claim happens, never both. A paused job that was
        never claimed has no ``started_at`` and is not in its type's running count.
        """
        async with self._database.connection() as connection, connection.transaction():
            row = await connection.fetchrow(
                "SELECT state, started_at IS NULL AS is_unclaimed FROM jobs WHERE id = $1::uuid FOR NO KEY UPDATE",
                job_id,
            )
            if row is None:
                return PendingChange(is_applied=False, found=None)
            found = JobState(row["state"])
            state = _pending_change(kind, found, is_unclaimed=row["is_unclaimed"])
            if state is not None:
                await _write_change(connection, job_id, state, note)
            return PendingChange(is_applied=state is not None, found=found)

    async def set_waiting(self, reasons: Mapping[JobId, str | None]) -> None:
        """Writes why PENDING jobs wait (None: no reason); leaves out jobs that changed or are changing."""
        await self._database.fetch(_SET_WAITING, list(reasons), list(reasons.values()))


def submission(jobs: Sequence[NewJob]) -> Sequence[Sequence[object]]:
    """Returns the arguments of the SQL function ``submit_jobs``."""
    values = list(columns([msgspec.structs.astuple(job) for job in jobs], len(NewJob.__struct_fields__)))
    for name in ("due_at", "scheduled_at", "created_at"):
        index = NewJob.__struct_fields__.index(name)
        values[index] = [None if instant is None else instant.timestamp() for instant in values[index]]
    return values


def _pending_change(kind: str, found: JobState, *, is_unclaimed: bool) -> JobState | None:
    """Returns the new state; None where the command does not apply to an unclaimed job in this state."""
    is_paused = found is JobState.PAUSED and is_unclaimed
    match kind:
        case "cancel" if found is JobState.PENDING or is_paused:
            return JobState.CANCELLED
        case "pause" if found is JobState.PENDING:
            return JobState.PAUSED
        case "resume" if is_paused:
            return JobState.PENDING
    return None


async def _write_change(
    connection: "PoolConnectionProxy[asyncpg.Record]", job_id: JobId, state: JobState, note: str
) -> None:
    code = ErrorCode.CANCELLED if state is JobState.CANCELLED else None
    await connection.execute(
        """
        WITH changed AS (
            UPDATE jobs SET state = $2, waiting_for = NULL, error_code = $3,
                error_message = CASE WHEN $3::text IS NULL THEN NULL ELSE $4::text END,
                finished_at = CASE WHEN $3::text IS NULL THEN NULL ELSE now() END
            WHERE id = $1::uuid RETURNING id, attempt)
        INSERT INTO job_history (job_id, at, state, attempt, error_code, note)
        SELECT id, now(), $2, attempt, $3, $4 FROM changed""",
        job_id,
        state,
        code,
        note,
    )


def _stored(row: Record, tasks: Sequence[TaskRow] | None) -> StoredJob:
    return StoredJob(
        view=_view(row),
        definition_id=row["definition_id"],
        shard=row["shard"],
        rendered_source=row["rendered_source"],
        tasks=tasks,
    )


def _view(row: Record) -> JobView:
    fields = dict(row)
    for name in ("definition_id", "shard", "rendered_source", "tasks"):
        fields.pop(name, None)
    fields["state"] = JobState(fields["state"])
    fields["params"] = msgspec.json.decode(fields["params"])
    fields["labels"] = msgspec.json.decode(fields["labels"])
    return JobView(**fields)


def _check_cursor(cursor: str) -> None:
    try:
        uuid.UUID(cursor)
    except ValueError:
        problem = Problem(path="cursor", message="it is no cursor of a job list", hint="use next_cursor of an answer")
        raise InvalidInputError(problem.message, [problem]) from None
