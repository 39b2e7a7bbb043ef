"""The journal: a batch of new states in one statement, one round trip and one commit.

Rules (``protocol.md`` 2; the SQL function ``journal_commit`` in ``functions.sql`` keeps them in the database):

- The epochs of the touched shards are checked under row locks: a queen that lost a lease commits nothing.
- Each batch has a number that rises; every shard row it touches keeps (incarnation, number) as its mark.
- An answer that never came is looked up by the mark. A batch that did not happen is *voided* in the same look-up: its
  successor's number is written as the mark, so a statement still under way, on the server or on the wire, is refused.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg
import structlog

from formicary.errors import UnavailableError
from formicary.ids import JobId
from formicary.outage import Outage
from formicary.store.database import (
    AWAY_ERRORS,
    FIRST_RETRY_S,
    LAST_RETRY_S,
    REFUSED_ERRORS,
    UNABLE_ERRORS,
    Database,
    Record,
    columns,
)
from formicary.store.errors import ClaimConflictError, DataRefusedError, FencedError, NotCommittedError
from formicary.store.jobs import submission
from formicary.store.rows import JournalBatch, NewJob, ShardMark

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

log = structlog.get_logger(__name__)

#: Longest wait for an answer; after it the connection is given up and the mark decides.
COMMIT_TIMEOUT_S = 30.0
FENCED = "FM001"
CLAIM_CONFLICT = "FM002"
PARAMETER_COUNT = 17

_COMMIT = f"SELECT journal_commit({', '.join(f'${number}' for number in range(1, PARAMETER_COUNT + 1))})"
_SUBMISSION = ", ".join(f"${PARAMETER_COUNT + number}" for number in range(1, len(NewJob.__struct_fields__) + 1))
#: The aggregate has the jobs inserted before the journal looks for them.
_SUBMIT_AND_COMMIT = f"{_COMMIT} FROM (SELECT count(*) AS count FROM submit_jobs({_SUBMISSION})) AS s WHERE s.count > 0"

_SETTLE = """
WITH seen AS MATERIALIZED (
    SELECT shard, epoch, mark_incarnation, mark_batch FROM leases
    WHERE shard = ANY ($1::integer[]) ORDER BY shard FOR NO KEY UPDATE
), voided AS (
    UPDATE leases l SET mark_incarnation = $3, mark_batch = $4::bigint + 1
    FROM seen JOIN unnest($1::integer[], $2::bigint[]) AS u (shard, epoch) USING (shard)
    WHERE l.shard = seen.shard AND seen.epoch = u.epoch
        AND (seen.mark_incarnation IS DISTINCT FROM $3 OR seen.mark_batch < $4))
SELECT shard, epoch, coalesce(mark_incarnation = $3 AND mark_batch = $4, false) AS is_ours FROM seen"""


class Journal:
    """Commits batches one after the other, in the order of the calls, on a connection of its own.

    One journal per life of a queen: ``incarnation`` must be new with each.
    """

    def __init__(self, database: Database, incarnation: str) -> None:
        self._database = database
        self._incarnation = incarnation
        self._number = 0
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._statements: dict[str, PreparedStatement[asyncpg.Record]] = {}
        self._outage = Outage("journal_waits_for_database")
        self._unable = Outage("database_cannot_write")
        self._pause_s = 0.0

    async def commit(self, batch: JournalBatch) -> None:
        """Writes all of the batch, durably, or nothing.

        Every batch with content names the shards it touches; within a batch no row comes twice. While the database
        is away this waits, for ever, until the fate of the batch is known. Cancelled, the fate is unknown.

        Raises:
            FencedError: a shard, or the leadership, is in a newer epoch.
            ClaimConflictError: jobs to be claimed are not PENDING any more, or their type is at its limit.
            DataRefusedError: the batch holds a value that cannot be stored.
            NotCommittedError: the connection was lost, or the server failed, and the batch will never happen. Where it
                has no room, this comes after a pause, so that who tries again leaves it time.
        """
        if not batch.shards:
            _refuse_content(batch)
            return
        async with self._turn:
            statement = await self._ready(_SUBMIT_AND_COMMIT if batch.fresh else _COMMIT)
            self._number += 1
            try:
                await statement.fetchval(*_arguments(batch, self._incarnation, self._number), timeout=COMMIT_TIMEOUT_S)
            except REFUSED_ERRORS as error:
                raise DataRefusedError(f"Postgres refuses a value of this batch: {error}") from error
            except AWAY_ERRORS as error:
                self._drop()
                await self._settle(batch.shards, error)
            except UNABLE_ERRORS as error:
                await self._pause(error)
                raise NotCommittedError(f"the database cannot write: {error}") from error
            except asyncpg.PostgresError as error:
                _translate(error)
            except asyncio.CancelledError:
                self._drop()
                raise
            else:
                self._pause_s = 0.0
                self._unable.over()

    def is_connected(self) -> bool:
        """Says whether the next commit is sent at once, as far as this side knows."""
        return self._connection is not None and not self._connection.is_closed()

    async def close(self) -> None:
        """Closes the connection; safe twice and before the first commit."""
        connection, self._connection, self._statements = self._connection, None, {}
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=5.0)
            except AWAY_ERRORS:
                connection.terminate()

    async def _ready(self, sql: str) -> "PreparedStatement[asyncpg.Record]":
        """Returns the prepared statement, connecting first where needed, for as long as it takes."""
        pause_s = FIRST_RETRY_S
        while sql not in self._statements or self._connection is None or self._connection.is_closed():
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection, self._statements = await self._database.connect(), {}
                self._statements[sql] = await self._connection.prepare(sql)
                self._outage.over()
            except (UnavailableError, *AWAY_ERRORS, *UNABLE_ERRORS) as error:
                self._outage.note(str(error))
                self._drop()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_RETRY_S)
        return self._statements[sql]

    def _drop(self) -> None:
        connection, self._connection, self._statements = self._connection, None, {}
        if connection is not None:
            connection.terminate()

    async def _pause(self, error: asyncpg.PostgresError) -> None:
        """Waits, longer each time until a commit succeeds."""
        self._unable.note(str(error))
        self._pause_s = min(max(self._pause_s * 2, FIRST_RETRY_S), LAST_RETRY_S)
        await asyncio.sleep(self._pause_s)

    async def _settle(self, shards: Sequence[ShardMark], cause: BaseException) -> None:
        """Learns whether the batch happened, and sees to it that otherwise it never will.

        Raises:
            FencedError: it did not, and a shard is another queen's.
            NotCommittedError: it did not.
        """
        number = self._number
        self._number += 1
        log.warning("journal_commit_unknown", batch=number, error=str(cause) or type(cause).__name__)
        rows = await self._settled([mark.shard for mark in shards], [mark.epoch for mark in shards], number)
        if any(row["is_ours"] for row in rows):
            log.info("journal_commit_found", batch=number)
            return
        epochs = {row["shard"]: row["epoch"] for row in rows}
        lost = [mark.shard for mark in shards if epochs.get(mark.shard) != mark.epoch]
        if lost:
            raise FencedError(lost) from cause
        raise NotCommittedError(f"batch {number} did not happen: {cause or type(cause).__name__}") from cause

    async def _settled(self, shards: list[int], epochs: list[int], number: int) -> list[Record]:
        while True:
            await self._ready(_COMMIT)
            assert self._connection is not None
            try:
                return await self._connection.fetch(
                    _SETTLE, shards, epochs, self._incarnation, number, timeout=COMMIT_TIMEOUT_S
                )
            except (*AWAY_ERRORS, *UNABLE_ERRORS) as error:
                self._outage.note(str(error))
                self._drop()
                await asyncio.sleep(FIRST_RETRY_S)


def _refuse_content(batch: JournalBatch) -> None:
    rows = (batch.jobs, batch.tasks, batch.attempts, batch.artifacts, batch.history, batch.commands_done, batch.fresh)
    if any(rows) or batch.claims or batch.running_deltas:
        raise ValueError("a journal batch with content must name the shards that it touches")


def _arguments(batch: JournalBatch, incarnation: str, number: int) -> Sequence[Any]:
    return (
        incarnation,
        number,
        batch.leader_epoch,
        *columns(batch.shards, 4),
        batch.jobs,
        batch.tasks,
        batch.attempts,
        batch.history,
        *columns(batch.commands_done, 2),
        batch.claims,
        tuple(batch.running_deltas),
        tuple(batch.running_deltas.values()),
        batch.artifacts,
        *(submission(batch.fresh) if batch.fresh else ()),
    )


def _translate(error: asyncpg.PostgresError) -> NoReturn:
    """Raises the store's error for one that the server raised; it wrote nothing."""
    detail = error.detail or ""
    if error.sqlstate == FENCED and detail == "leader":
        raise FencedError((), is_leader=True) from error
    if error.sqlstate == FENCED:
        raise FencedError([int(shard) for shard in detail.split(",")]) from error
    if error.sqlstate == CLAIM_CONFLICT:
        raise ClaimConflictError([JobId(job_id) for job_id in detail.split(",") if job_id]) from error
    raise NotCommittedError(f"the database refused a batch: {error}") from error
