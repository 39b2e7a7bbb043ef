"""Who needs which content of the artifact store, and until when: the rows of ``artifacts``."""

from collections.abc import Sequence
from uuid import UUID

from formicary.model.holders import Holder, Uses
from formicary.store.database import Database
from formicary.store.ended_jobs import HAS_ENDED

#: Both halves in one statement: one snapshot, so that an attempt is seen before its commit or after it.
_USES = """
SELECT c.sha256, NULL AS holder FROM unnest($1::text[]) AS c (sha256)
    WHERE EXISTS (SELECT FROM artifacts a WHERE a.sha256 = c.sha256)
UNION ALL
SELECT NULL, h.place FROM unnest($2::uuid[], $3::integer[], $4::integer[]) WITH ORDINALITY
        AS h (job_id, task_no, attempt, place)
    JOIN tasks t ON t.job_id = h.job_id AND t.task_no = h.task_no
    WHERE t.attempt <= h.attempt AND t.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')"""

#: Under the lock of the job's row, which a restart takes too before it reads the job: either the job runs again and
#: keeps everything, or its artifacts are marked, and the restart sees that. Rows that somebody else has locked are left
#: for the next time. So this never waits while it holds locks, and nobody can wait for it in a circle.
_EXPIRE = f"""
WITH due AS MATERIALIZED (
    SELECT a.job_id, a.task_no, a.attempt, a.name FROM artifacts a JOIN jobs j ON j.id = a.job_id
    WHERE a.expires_at <= now() AND {HAS_ENDED}
    ORDER BY a.expires_at LIMIT $1 FOR NO KEY UPDATE OF j SKIP LOCKED FOR UPDATE OF a SKIP LOCKED
), gone AS (
    DELETE FROM artifacts a USING due d
    WHERE a.job_id = d.job_id AND a.task_no = d.task_no AND a.attempt = d.attempt AND a.name = d.name
    RETURNING a.job_id, a.task_no, a.attempt, a.name, a.sha256
), ends AS (
    SELECT job_id, task_no, attempt, array_agg(name) AS names FROM gone GROUP BY 1, 2, 3
), newest AS (
    UPDATE tasks t SET artifacts = mark_expired(t.artifacts, e.names) FROM ends e
    WHERE t.job_id = e.job_id AND t.task_no = e.task_no AND t.attempt = e.attempt AND t.artifacts IS NOT NULL
), former AS (
    UPDATE task_attempts t SET artifacts = mark_expired(t.artifacts, e.names) FROM ends e
    WHERE t.job_id = e.job_id AND t.task_no = e.task_no AND t.attempt = e.attempt AND t.artifacts IS NOT NULL
)
SELECT sha256 FROM gone"""

#: Attempts below zero are pins of ``memos.py``: over once that attempt, or the job, is. Under the lock of the job's row
#: as well: a restart is committed before or afterwards, and pins for it are written only when it was.
_UNPIN = """
WITH over AS MATERIALIZED (
    SELECT a.job_id, a.task_no, a.attempt, a.name FROM artifacts a JOIN jobs j ON j.id = a.job_id
    WHERE a.attempt < 0 AND (j.state IN ('COMPLETED', 'FAILED', 'CANCELLED') OR EXISTS (
        SELECT FROM tasks t WHERE t.job_id = a.job_id AND t.task_no = a.task_no AND t.attempt >= -a.attempt))
    LIMIT $1 FOR NO KEY UPDATE OF j SKIP LOCKED FOR UPDATE OF a SKIP LOCKED
), lost AS MATERIALIZED (
    SELECT a.job_id, a.task_no, a.attempt, a.name FROM artifacts a
    WHERE a.attempt < 0 AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = a.job_id) LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM artifacts a USING (SELECT * FROM over UNION SELECT * FROM lost) AS d
WHERE a.job_id = d.job_id AND a.task_no = d.task_no AND a.attempt = d.attempt AND a.name = d.name
RETURNING a.sha256"""


class References:
    """The rows of ``artifacts``.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def colony_id(self) -> str:
        """Returns what tells this colony from others."""
        row = await self._database.fetch_one("SELECT id::text FROM colony")
        assert row is not None, "the schema was made"
        colony_id: str = row["id"]
        return colony_id

    async def uses(self, contents: Sequence[str], holders: Sequence[Holder]) -> Uses:
        """Returns which contents rows refer to, and which of these attempts may still report, all at one moment."""
        known = [holder for holder in holders if _is_uuid(holder.job_id)]
        columns = [list(column) for column in zip(*known, strict=True)] or [[], [], []]
        rows = await self._database.fetch(_USES, list(contents), *columns)
        return Uses(
            frozenset(row["sha256"] for row in rows if row["holder"] is None),
            frozenset(known[row["holder"] - 1] for row in rows if row["holder"] is not None),
        )

    async def expire(self, limit: int) -> list[str]:
        """Removes references whose time has come and whose jobs have ended, oldest first; returns their contents."""
        return [row["sha256"] for row in await self._database.fetch(_EXPIRE, limit)]

    async def unpin(self, limit: int) -> list[str]:
        """Removes what was kept for results that were taken, or not; returns the contents.

        At least ``limit`` of them where there may be more.
        """
        return [row["sha256"] for row in await self._database.fetch(_UNPIN, limit)]


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
