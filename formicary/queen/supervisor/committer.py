"""Commits batches in order and publishes what follows from each, while the next is being stepped."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec
import structlog

from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.ids import JobId
from formicary.metrics import COMMIT_ROWS, COMMIT_SECONDS
from formicary.queen.supervisor.batch import Batch, without_jobs
from formicary.queen.supervisor.live import AttemptKey, LiveJob, LiveShard
from formicary.store.errors import ClaimConflictError, DataRefusedError, FencedError, NotCommittedError
from formicary.store.journal import Journal
from formicary.store.rows import JournalBatch, ShardMark

log = structlog.get_logger(__name__)

#: Published batches that may wait for the broker before committing pauses.
PUBLISH_AHEAD = 4
_TASK_ROWS = COMMIT_ROWS.labels("tasks")


Sendable = tuple[list[Outgoing], list[asyncio.Event]]
"""The messages of a committed batch, and who waits until they are sent."""


class Failures(Protocol):
    """Who is told what could not be committed."""

    def drop_shards(self, shards: list[LiveShard], why: str) -> None:
        """Forgets the memory of these shards, which is ahead of the database, and loads them again."""

    def drop_jobs(self, job_ids: set[JobId]) -> None:
        """Forgets jobs that were claimed by somebody else first."""

    def poison(self, attempts: set[AttemptKey]) -> None:
        """Fails attempts whose results the database refuses."""


class Committer:
    """One commit at a time; messages leave in the order of the commits, after them."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        clock: Clock,
        failures: Failures,
        ended: Callable[[list[JobId]], None],
        claimed: Callable[[Iterable[LiveJob]], None],
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._clock = clock
        self._failures = failures
        self._ended = ended
        self._claimed = claimed
        self._publishing: asyncio.Queue[Sendable] = asyncio.Queue(PUBLISH_AHEAD)

    async def run(self, take: Callable[[], Awaitable[Batch]]) -> None:
        """Commits what ``take`` gives, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish())
            while True:
                await self.commit(await take())

    async def commit(self, batch: Batch) -> None:
        """Commits one batch and hands its messages to the publisher; tells ``Failures`` what could not be."""
        rows = batch.close(self._clock.now())
        try:
            with COMMIT_SECONDS.time():
                written = await self._write(batch, rows)
        except (FencedError, NotCommittedError) as error:
            self._claimed(batch.claims)
            self._failures.drop_shards(list(batch.shards), str(error))
            tell(batch.waiters)
            return
        _TASK_ROWS.inc(len(rows.tasks))
        self._claimed(batch.claims)
        _note_positions(batch, written)
        if batch.outgoing or batch.waiters:
            await self._publishing.put((batch.outgoing, batch.waiters))
        if batch.ended:
            self._ended(batch.ended)

    async def _write(self, batch: Batch, rows: JournalBatch) -> Sequence[ShardMark]:
        """Returns the marks, with positions, that were committed."""
        while has_rows(rows) or batch.moves_positions:
            try:
                await self._journal.commit(rows)
            except ClaimConflictError as error:
                guilty = set(error.job_ids) & set(rows.claims) or set(rows.claims)
                log.info("claims_refused", count=len(guilty))
                self._failures.drop_jobs(guilty)
                batch.forget(guilty)
                rows = without_jobs(rows, guilty, batch.running_deltas())
            except DataRefusedError as error:
                rows = await self._isolate(batch, rows, error)
                batch.moves_positions = False
            else:
                return rows.shards
        return ()

    async def _isolate(self, batch: Batch, rows: JournalBatch, error: DataRefusedError) -> JournalBatch:
        """Commits every job of the batch alone, so that only the guilty ones fail; returns what is left to write.

        The positions are not moved here: they follow with the next batch, and reading an event again is harmless.
        """
        log.error("rows_refused", reason=str(error))
        marks = [ShardMark(mark.shard, mark.epoch) for mark in rows.shards]
        rows = msgspec.structs.replace(rows, shards=marks)
        guilty: set[JobId] = set()
        everyone = {live.id for live in batch.jobs}
        for job_id in everyone:
            others = everyone - {job_id}
            alone = without_jobs(rows, others, batch.running_deltas({job_id}))
            try:
                await self._journal.commit(msgspec.structs.replace(alone, commands_done=()))
            except DataRefusedError:
                guilty.add(job_id)
        batch.forget(guilty)
        refused = [row for row in rows.tasks if row.job_id in guilty]
        self._failures.poison({(JobId(row.job_id), row.task_no, row.attempt) for row in refused})
        return JournalBatch(shards=marks, commands_done=rows.commands_done)

    async def _publish(self) -> None:
        while True:
            outgoing, waiters = await self._publishing.get()
            while not self._publishing.empty():
                more, waiting = self._publishing.get_nowait()
                outgoing, waiters = outgoing + more, waiters + waiting
            if outgoing:
                await self._bus.publish(outgoing)
            tell(waiters)


def tell(waiters: Iterable[asyncio.Event]) -> None:
    """Wakes those who waited for a batch."""
    for waiter in waiters:
        waiter.set()


def _note_positions(batch: Batch, written: Sequence[ShardMark]) -> None:
    by_number = {mark.shard: mark for mark in written}
    for shard in batch.shards:
        mark = by_number.get(shard.number)
        if mark is not None and mark.epoch == shard.epoch:
            shard.committed_position = mark.results_position or shard.committed_position
            shard.committed_launch_position = mark.launch_position or shard.committed_launch_position


def has_rows(rows: JournalBatch) -> bool:
    """Says whether there is anything to write."""
    return bool(rows.jobs or rows.tasks or rows.attempts or rows.commands_done or rows.history)
