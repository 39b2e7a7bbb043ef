"""What the history says and the bus does not know yet: rows of ``job_history`` behind a stored cursor.

Numbers (``seq``) are drawn before the commit, so a row can become visible after one with a higher number. Rules:

- A job's rows are inserted under the lock of its row in ``jobs``: by number they are in the order of its states.
- Numbers without a hole in between are complete. A hole is either a transaction under way or one that was rolled back:
  it is the latter once every transaction is over that had begun to write when the hole was seen.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from formicary.ids import JobId
from formicary.store.database import Database

_READ = """
SELECT h.seq, h.job_id::text, t.job_type, h.at, h.state, h.attempt, h.error_code, h.note, h.task_type, h.exit_code,
    h.incarnation
FROM (SELECT * FROM job_history WHERE seq > $1 ORDER BY seq LIMIT $2) AS h
LEFT JOIN jobs j ON j.id = h.job_id LEFT JOIN job_types t ON t.id = j.job_type_id
ORDER BY h.seq"""

_ADVANCE = """
UPDATE colony SET lifecycle_seq = $1
WHERE lifecycle_seq < $1 AND EXISTS (SELECT FROM leases WHERE name = 'leader' AND epoch = $2)
RETURNING lifecycle_seq"""


class Change(NamedTuple):
    """A row of ``job_history``; ``job_type`` is None where the job is gone."""

    seq: int
    job_id: JobId
    job_type: str | None
    at: datetime
    state: str
    attempt: int
    error_code: str | None
    note: str | None
    task_type: str | None
    exit_code: int | None
    incarnation: str | None


class Hole(NamedTuple):
    """A look that found a hole: numbers up to ``seq`` were drawn by transactions older than ``xid``."""

    seq: int
    xid: int


class LifecycleStore:
    """The cursor over ``job_history``; for one reader at a time.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hole: Hole | None = None

    async def cursor(self) -> int:
        """Returns the number up to which everything is published."""
        row = await self._database.fetch_one("SELECT lifecycle_seq FROM colony")
        assert row is not None
        return int(row["lifecycle_seq"])

    async def read(self, after: int, limit: int) -> list[Change]:
        """Returns up to ``limit`` changes behind ``after``, in order, such that none will appear between them."""
        settled = await self._settled()
        rows = await self._database.fetch(_READ, after, limit)
        changes = [Change(*row.values()) for row in rows]
        count = _complete(after, [change.seq for change in changes], settled)
        if count == len(changes):
            self._hole = None
        elif self._hole is None or settled:
            self._hole = Hole(changes[-1].seq, await self._newest_transaction())
        return changes[:count]

    async def advance(self, seq: int, leader_epoch: int) -> bool:
        """Stores that everything up to ``seq`` is published; False where another queen leads, or is further."""
        return await self._database.fetch_one(_ADVANCE, seq, leader_epoch) is not None

    async def _settled(self) -> int:
        """Returns the number up to which holes stay holes."""
        if self._hole is None:
            return 0
        row = await self._database.fetch_one("SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS oldest")
        assert row is not None
        return self._hole.seq if int(row["oldest"]) > self._hole.xid else 0

    async def _newest_transaction(self) -> int:
        # A snapshot's own upper bound does not serve: transactions beyond it may have begun to write.
        row = await self._database.fetch_one("SELECT pg_current_xact_id()::text AS xid")
        assert row is not None
        return int(row["xid"])


def _complete(after: int, numbers: Sequence[int], settled: int) -> int:
    """Returns how many of the ascending ``numbers`` come before the first hole that may still be filled."""
    expected = after + 1
    for count, number in enumerate(numbers):
        if number != expected and number > settled:
            return count
        expected = number + 1
    return len(numbers)
