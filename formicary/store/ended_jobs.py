"""Deleting jobs that have ended, and what else there is of them.

The row of a job goes first, and a trigger notes its id in ``deleted_jobs`` in the same commit, also where a person
deleted it. Everything else goes afterwards, a limited number of rows in each statement: whatever stops in between, the
note says what is left.
"""

from collections.abc import Sequence
from typing import Final

from formicary.ids import JobId
from formicary.store.database import Database

#: Of a job ``j``: it has ended, and no restart is reading it. ``CommandStore.hold`` says how that is known.
HAS_ENDED: Final = """j.state IN ('COMPLETED', 'FAILED', 'CANCELLED') AND (
    j.held_by IS NULL OR EXISTS (SELECT FROM job_commands c WHERE c.id = j.held_by AND c.done_at IS NOT NULL))"""

#: Ids begin with the time of the submission, so those from before are at one end of an index; among them only jobs that
#: took long, or were restarted, are looked at in vain.
_OLD = """
    (SELECT id FROM jobs WHERE state = '{}' AND id < $2::uuid AND finished_at <= now() - make_interval(secs => $1)
        ORDER BY id LIMIT $3)"""
_DELETE = f"""
WITH due AS MATERIALIZED (
    SELECT j.id FROM jobs j
    WHERE j.id = ANY (ARRAY({" UNION ALL ".join(_OLD.format(state) for state in ("COMPLETED", "FAILED", "CANCELLED"))}))
        AND {HAS_ENDED} AND j.finished_at <= now() - make_interval(secs => $1)
        AND NOT EXISTS (SELECT FROM job_commands c WHERE c.shard = j.shard AND c.job_id = j.id AND c.done_at IS NULL)
        AND (NOT $4 OR NOT EXISTS (SELECT FROM job_history h
            WHERE h.job_id = j.id AND h.seq > (SELECT lifecycle_seq FROM colony)))
    LIMIT $3 FOR UPDATE OF j SKIP LOCKED
), gone AS (
    DELETE FROM jobs USING due WHERE jobs.id = due.id RETURNING 1
)
SELECT count(*) AS count FROM gone"""

_ARTIFACTS = """
WITH found AS MATERIALIZED (
    SELECT job_id, task_no, attempt, name FROM artifacts WHERE job_id = ANY ($1::uuid[])
    LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM artifacts a USING found f
WHERE a.job_id = f.job_id AND a.task_no = f.task_no AND a.attempt = f.attempt AND a.name = f.name RETURNING a.sha256"""

#: Where other rows of a job are.
_TABLES: Final = "task_logs", "log_part_attempts", "log_parts", "tasks", "task_attempts", "job_history", "job_commands"
_ROWS = """
WITH gone AS (DELETE FROM {0} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {0} WHERE job_id = ANY ($1::uuid[]) LIMIT $2)) RETURNING 1)
SELECT count(*) AS count FROM gone"""

_FORGET = """
DELETE FROM deleted_jobs d WHERE job_id = ANY ($1::uuid[])
    AND NOT EXISTS (SELECT FROM artifacts a WHERE a.job_id = d.job_id) RETURNING 1"""

_OLD_KEYS = """
WITH gone AS (DELETE FROM idempotency_keys WHERE (group_id, key) IN (
    SELECT group_id, key FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)
    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1)
SELECT count(*) AS count FROM gone"""

#: Rows that one statement deletes at most.
ROWS: Final = 10_000


class EndedJobs:
    """Deletes jobs.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete(self, ended_before_s: float, first_kept: JobId, limit: int, *, only_published: bool) -> int:
        """Deletes the rows of jobs that ended so long ago, oldest first; returns their number.

        Args:
            ended_before_s: how long ago, by the database's clock.
            first_kept: jobs from this id on are not looked at: none of them was submitted so long ago.
            limit: the largest number of jobs.
            only_published: leaves jobs alone whose changes the bus does not know yet.
        """
        row = await self._database.fetch_one(_DELETE, ended_before_s, first_kept, limit, only_published)
        return 0 if row is None else int(row["count"])

    async def deleted(self, limit: int) -> list[JobId]:
        """Returns jobs that were deleted and of which there may be more."""
        rows = await self._database.fetch("SELECT job_id::text FROM deleted_jobs ORDER BY job_id LIMIT $1", limit)
        return [JobId(row["job_id"]) for row in rows]

    async def log_keys(self, job_ids: Sequence[JobId]) -> list[str]:
        """Returns the objects that hold output of these jobs."""
        rows = await self._database.fetch("SELECT key FROM log_parts WHERE job_id = ANY ($1::uuid[])", job_ids)
        return [row["key"] for row in rows]

    async def let_go(self, job_ids: Sequence[JobId]) -> list[str]:
        """Removes some of the references of deleted jobs, none where no more are left; returns their contents."""
        return [row["sha256"] for row in await self._database.fetch(_ARTIFACTS, job_ids, ROWS)]

    async def clear(self, job_ids: Sequence[JobId]) -> None:
        """Deletes all other rows of deleted jobs."""
        for table in _TABLES:
            while await self._clear(table, job_ids) == ROWS:
                pass

    async def forget(self, job_ids: Sequence[JobId]) -> int:
        """Takes the notes of deleted jobs away of which nothing is left; returns how many."""
        return len(await self._database.fetch(_FORGET, job_ids))

    async def forget_keys(self, taken_before_s: float) -> int:
        """Deletes some of the keys of submissions that were taken so long ago, oldest first; returns how many."""
        row = await self._database.fetch_one(_OLD_KEYS, taken_before_s, ROWS)
        return 0 if row is None else int(row["count"])

    async def _clear(self, table: str, job_ids: Sequence[JobId]) -> int:
        row = await self._database.fetch_one(_ROWS.format(table), job_ids, ROWS)
        return 0 if row is None else int(row["count"])
