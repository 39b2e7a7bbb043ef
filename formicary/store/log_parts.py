"""Output that was moved to the artifact store: where it is, and what can move.

Lines of a job up to the ``last_arrival`` of its newest part are read from the parts, all others from ``task_logs``. The
row of a part is committed first and its lines are deleted afterwards, so nothing is missing or there twice in between.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from formicary.ids import JobId
from formicary.store.database import Database

_NO_JOB: Final = "00000000-0000-0000-0000-000000000000"

#: Looks from one job with lines to the next one, as long as it is asked for more: lines of a job cost nothing here.
_HELD = """
WITH RECURSIVE held AS (
    (SELECT job_id FROM task_logs WHERE job_id > $1::uuid ORDER BY job_id LIMIT 1)
    UNION ALL
    SELECT following.job_id FROM held,
        LATERAL (SELECT job_id FROM task_logs l WHERE l.job_id > held.job_id ORDER BY job_id LIMIT 1) AS following)
SELECT h.job_id::text, coalesce(j.state IN ('COMPLETED', 'FAILED', 'CANCELLED')
    AND j.finished_at <= now() - make_interval(secs => $3), false) AS is_due, j.id IS NULL AS is_gone
FROM (SELECT job_id FROM held LIMIT $2) AS h LEFT JOIN jobs j ON j.id = h.job_id ORDER BY h.job_id"""

_COMMIT = "SELECT archive_logs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"

_DELETE = """
WITH gone AS (DELETE FROM task_logs WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM task_logs WHERE job_id = $1::uuid AND arrival <= $2 LIMIT $3)) RETURNING 1)
SELECT count(*) AS count FROM gone"""

_PARTS = """
SELECT part, key, first_arrival, last_arrival, line_count, index_start, size_bytes FROM log_parts
WHERE job_id = $1::uuid AND last_arrival > $2 ORDER BY part"""


class Held(NamedTuple):
    """A job with lines in ``task_logs``; ``is_due``: it ended long enough ago to move them; ``is_gone``: deleted."""

    job_id: JobId
    is_due: bool
    is_gone: bool


class LogPart(NamedTuple):
    """An object with lines of one job; ``part`` counts from 1."""

    part: int
    key: str
    first_arrival: int
    last_arrival: int
    line_count: int
    index_start: int
    size_bytes: int


class AttemptLines(NamedTuple):
    """Lines of one attempt: ranges of their numbers, each with its first and last."""

    task_no: int
    attempt: int
    ranges: tuple[tuple[int, int], ...]


class LogPartStore:
    """The tables ``log_parts`` and ``log_part_attempts``.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def held(self, after: JobId | None, limit: int, ended_before_s: float) -> list[Held]:
        """Returns jobs with lines in ``task_logs``, in the order of their ids."""
        rows = await self._database.fetch(_HELD, after or _NO_JOB, limit, ended_before_s)
        return [Held(JobId(row["job_id"]), row["is_due"], row["is_gone"]) for row in rows]

    async def parts(self, job_id: JobId, after_arrival: int = 0) -> list[LogPart]:
        """Returns the parts that hold lines behind ``after_arrival``, in order."""
        return [LogPart(*row.values()) for row in await self._database.fetch(_PARTS, job_id, after_arrival)]

    async def commit(self, job_id: JobId, part: LogPart, attempts: Sequence[AttemptLines], leader_epoch: int) -> bool:
        """Stores a part, from which its lines are read from now on; False where another queen leads or stored it."""
        seqs = [_multirange(lines.ranges) for lines in attempts]
        task_nos, numbers = [lines.task_no for lines in attempts], [lines.attempt for lines in attempts]
        row = await self._database.fetch_one(_COMMIT, leader_epoch, job_id, *part, task_nos, numbers, seqs)
        return row is not None and bool(row[0])

    async def clear(self, job_id: JobId, up_to_arrival: int, limit: int) -> int:
        """Deletes up to ``limit`` lines, which are in parts or of a deleted job; returns how many it deleted."""
        row = await self._database.fetch_one(_DELETE, job_id, up_to_arrival, limit)
        return 0 if row is None else int(row["count"])

    async def unknown(self, keys: Sequence[tuple[JobId, str]]) -> list[str]:
        """Returns those of the objects to which no part refers."""
        rows = await self._database.fetch(
            "SELECT u.key FROM unnest($1::uuid[], $2::text[]) AS u (job_id, key) "
            "WHERE NOT EXISTS (SELECT FROM log_parts p WHERE p.job_id = u.job_id AND p.key = u.key)",
            [job_id for job_id, _ in keys],
            [key for _, key in keys],
        )
        return [row["key"] for row in rows]


def _multirange(ranges: Sequence[tuple[int, int]]) -> str:
    return "{" + ",".join(f"[{first},{last}]" for first, last in ranges) + "}"
