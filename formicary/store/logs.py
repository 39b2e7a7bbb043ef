"""Output of tasks, line by line."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from formicary.events.logs import LogChunk
from formicary.ids import JobId
from formicary.store.database import Database, columns

_APPEND = "SELECT append_logs($1, $2, $3, $4, $5, $6, $7)"


class LogRow(NamedTuple):
    """A stored line; ``arrival`` rises with each line of a job."""

    arrival: int
    task_no: int
    attempt: int
    seq: int
    stream: str
    at: datetime
    line: str


class LogStore:
    """The table ``task_logs``.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, chunks: Sequence[LogChunk]) -> None:
        """Stores lines in one round trip and one commit; lines that are there already stay as they are.

        Raises:
            DataRefusedError: a line holds a character that Postgres refuses; nothing was written.
        """
        rows = [
            (chunk.job_id, chunk.task_no, chunk.attempt, line.seq, line.stream, line.at.timestamp(), line.text)
            for chunk in chunks
            for line in chunk.lines
        ]
        if rows:
            await self._database.fetch(_APPEND, *columns(rows, 7))

    async def read(
        self, job_id: JobId, task_no: int | None, attempt: int | None, after_arrival: int, limit: int
    ) -> list[LogRow]:
        """Returns lines of a job, of one task or attempt or of all (None), in order of arrival after ``after_arrival``.

        Following from the last arrival seen misses no line: those of one job become visible in order.
        """
        rows = await self._database.fetch(
            "SELECT arrival, task_no, attempt, seq, stream, at, line FROM task_logs "
            "WHERE job_id = $1::uuid AND arrival > $4 AND ($2::integer IS NULL OR task_no = $2) "
            "AND ($3::integer IS NULL OR attempt = $3) ORDER BY arrival LIMIT $5",
            job_id,
            task_no,
            attempt,
            after_arrival,
            limit,
        )
        return [LogRow(*row.values()) for row in rows]

    async def last_arrivals(
        self, job_id: JobId, task_no: int | None, attempt: int | None, after_arrival: int, count: int
    ) -> list[int]:
        """Returns the arrivals of the last ``count`` lines behind ``after_arrival``, in order."""
        rows = await self._database.fetch(
            "SELECT arrival FROM task_logs WHERE job_id = $1::uuid AND arrival > $4 "
            "AND ($2::integer IS NULL OR task_no = $2) AND ($3::integer IS NULL OR attempt = $3) "
            "ORDER BY arrival DESC LIMIT $5",
            job_id,
            task_no,
            attempt,
            after_arrival,
            count,
        )
        return [row["arrival"] for row in reversed(rows)]
