"""What the scheduler looks at: pending jobs that may start, and why others may not.

The heads of each unblocked job type are read from the index ``jobs_pending`` (job type, priority, due) and merged, one
priority after the other within a type: neither a blocked type nor jobs due tomorrow cost anything, however many.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import asyncpg
import msgspec

from formicary.ids import JobId
from formicary.store.database import Database
from formicary.store.errors import FencedError
from formicary.store.rows import JobRecord
from formicary.store.shards import SELECT_JOBS, LoadedJob, with_tasks

#: Pending jobs of a blocked type that are told why they wait.
EXPLAINED_COUNT = 100

_HEADS = """
SELECT head.id FROM job_types t
CROSS JOIN LATERAL (
    SELECT CASE WHEN t.max_concurrency IS NULL THEN $1::bigint ELSE least($1, t.max_concurrency - t.running_count - (
        SELECT count(*) FROM jobs c WHERE c.id = ANY ($2::uuid[]) AND c.job_type_id = t.id AND c.state = 'PENDING'
    )) END AS room) AS free
CROSS JOIN LATERAL (
    WITH RECURSIVE levels AS (
        (SELECT j.priority FROM jobs j WHERE j.job_type_id = t.id AND j.state = 'PENDING' AND free.room > 0
            ORDER BY j.priority DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT j.priority FROM jobs j
            WHERE j.job_type_id = t.id AND j.state = 'PENDING' AND j.priority < levels.priority
            ORDER BY j.priority DESC LIMIT 1)
        FROM levels WHERE levels.priority IS NOT NULL)
    SELECT due.* FROM levels CROSS JOIN LATERAL (
        SELECT j.priority, j.due_at, j.id FROM jobs j
        WHERE j.job_type_id = t.id AND j.state = 'PENDING' AND j.priority = levels.priority AND j.due_at <= now()
            AND j.id <> ALL ($2::uuid[])
        ORDER BY j.due_at, j.id LIMIT greatest(free.room, 0)) AS due
    ORDER BY due.priority DESC, due.due_at, due.id LIMIT greatest(free.room, 0)) AS head
ORDER BY head.priority DESC, head.due_at, head.id LIMIT $1"""

_DETAILS = f"{SELECT_JOBS} WHERE j.id = ANY ($1::uuid[]) AND j.state = 'PENDING'"

_BLOCKED = f"""
SELECT t.id AS job_type_id, t.job_type, t.running_count, t.max_concurrency,
    (SELECT j.id::text FROM leases l CROSS JOIN LATERAL (
        SELECT id FROM jobs j WHERE j.shard = l.shard AND j.job_type_id = t.id
            AND j.state IN ('READY', 'EXECUTING', 'PAUSED', 'MANUAL_APPROVAL_REQUIRED')
            AND NOT (j.state = 'PAUSED' AND j.started_at IS NULL)
        LIMIT 1) AS j LIMIT 1) AS running_job_id,
    waiting.ids AS pending_job_ids
FROM job_types t CROSS JOIN LATERAL (
    SELECT array_agg(head.id::text) AS ids FROM (
        SELECT j.id FROM jobs j WHERE j.job_type_id = t.id AND j.state = 'PENDING'
        ORDER BY j.priority DESC, j.due_at, j.id LIMIT {EXPLAINED_COUNT}) AS head) AS waiting
WHERE t.running_count >= t.max_concurrency AND waiting.ids IS NOT NULL ORDER BY t.id"""


_OUTLOOK = """
SELECT (SELECT min(due_at) FROM jobs WHERE state = 'PENDING' AND scheduled_at IS NOT NULL AND due_at > now())
    AS next_due_at,
  EXISTS (SELECT FROM job_types t WHERE t.max_concurrency IS NOT NULL AND EXISTS (
    SELECT FROM jobs j WHERE j.job_type_id = t.id AND j.state = 'PENDING')) AS is_limited"""


class Outlook(NamedTuple):
    """What can make pending jobs claimable: time, and where ``is_limited`` also the end of another job."""

    next_due_at: datetime | None
    is_limited: bool


class BlockedType(msgspec.Struct, frozen=True, kw_only=True):
    """A job type at its ``max_concurrency``: one job that runs, and the first that wait (at most 100)."""

    job_type_id: int
    job_type: str
    running_count: int
    max_concurrency: int
    running_job_id: JobId | None
    pending_job_ids: tuple[JobId, ...]


class ClaimStore:
    """Pending jobs, for the scheduler.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def peek(self, limit: int, exclude: Collection[JobId]) -> list[LoadedJob]:
        """Returns due jobs that may start now, by priority, then due time; claims nothing.

        ``exclude`` are jobs whose claim is under way: they are left out, and count towards ``max_concurrency``. Tasks
        are loaded for restarted jobs only.
        """
        async with self._database.connection() as connection:
            ids = [row["id"] for row in await connection.fetch(_HEADS, limit, list(exclude))]
            rows = await connection.fetch(_DETAILS, ids) if ids else []
        by_id = {row["id"]: row for row in rows}
        ordered = [by_id[str(job_id)] for job_id in ids if str(job_id) in by_id]
        if all(row["attempt"] == 1 for row in ordered):
            return [LoadedJob(JobRecord(*row.values()), []) for row in ordered]
        return await with_tasks(self._database, ordered, only_restarted=True)

    async def claim_ready(self, job_ids: Collection[JobId], leader_epoch: int) -> list[JobId]:
        """Turns PENDING jobs READY, for owners elsewhere, and counts them; one statement, one commit.

        Returns:
            The jobs that were claimed: others are not PENDING any more, or beyond their type's ``max_concurrency``.

        Raises:
            FencedError: another queen leads.
        """
        async with self._database.connection() as connection:
            try:
                rows = await connection.fetch(
                    "SELECT id FROM claim_ready($1::uuid[], $2) AS id", list(job_ids), leader_epoch
                )
            except asyncpg.PostgresError as error:
                if error.sqlstate == "FM001":
                    raise FencedError((), is_leader=True) from error
                raise
        return [JobId(str(row["id"])) for row in rows]

    async def outlook(self) -> Outlook:
        """Returns what can make pending jobs claimable."""
        row = await self._database.fetch_one(_OUTLOOK)
        assert row is not None, "aggregates have a row"
        return Outlook(row["next_due_at"], row["is_limited"])

    async def blocked(self) -> list[BlockedType]:
        """Returns the job types at their ``max_concurrency`` that have pending jobs."""
        rows = await self._database.fetch(_BLOCKED)
        return [BlockedType(**{**row, "pending_job_ids": tuple(row["pending_job_ids"])}) for row in rows]
