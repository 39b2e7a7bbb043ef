"""Commits batches in order and publishes what follows from each, while the next is being stepped."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import msgspec
import structlog

from brokers.errors import MessageTooLargeError
from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.errors import DataError
from formicary.events.base import Event
from formicary.ids import JobId
from formicary.metrics import COMMIT_SECONDS
from formicary.queen.supervisor.batch import Batch, job_ids_of, rows_of
from formicary.queen.supervisor.counting import count_committed, count_sent
from formicary.queen.supervisor.live import AttemptKey, LiveJob, LiveShard
from formicary.queen.watch import News
from formicary.store.errors import ClaimConflictError, DataRefusedError, FencedError, NotCommittedError
from formicary.store.journal import Journal
from formicary.store.rows import JournalBatch, ShardMark

log = structlog.get_logger(__name__)

#: Published batches that may wait for the broker before committing pauses.
PUBLISH_AHEAD = 4

Sendable = tuple[list[Outgoing], list[asyncio.Event]]
"""The messages of a committed batch, and who waits until they are sent."""


class Failures(Protocol):
    """Who is told what could not be committed."""

    def drop_shards(self, shards: list[LiveShard], why: str) -> None:
        """Forgets the memory of these shards, which is ahead of the database, and loads them again."""

    def drop_jobs(self, jobs: list[LiveJob]) -> None:
        """Forgets jobs whose claim does not hold."""

    def poison(self, jobs: list[LiveJob], attempts: set[AttemptKey]) -> None:
        """Fails attempts of these jobs whose results the database refuses."""

    def unsendable(self, event: Event, why: str) -> None:
        """Fails the attempt of an event that the broker can never carry."""


class Committer:
    """One commit at a time; messages leave in the order of the commits, after them."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        clock: Clock,
        failures: Failures,
        ended: Callable[[list[JobId], News], None],
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
        try:
            await self._commit(batch)
        finally:
            batch.answer(is_committed=False)  # those that have no answer yet

    async def _commit(self, batch: Batch) -> None:
        if batch.fresh:
            self._give_up(batch)
        rows = batch.close(self._clock.now())
        try:
            with COMMIT_SECONDS.time():
                written = await self._write(batch, rows)
        except (FencedError, NotCommittedError) as error:
            self._claimed(batch.claims)
            self._failures.drop_shards(list(batch.shards), str(error))
            tell(batch.waiters)
            return
        batch.receipt.is_committed = True
        batch.answer(is_committed=True)
        self._claimed(batch.claims)
        _note_positions(batch, written)
        if batch.ended:
            self._ended(batch.ended, batch.ended_job)
        if batch.outgoing or batch.waiters:
            await self._publishing.put((batch.outgoing, batch.waiters))

    def _give_up(self, batch: Batch) -> None:
        """Drops submissions that nobody waits for, or may wait for no more when there is a connection.

        Who is told that the database is away submits again: nothing may come of the first time later.
        """
        is_away = not self._journal.is_connected()
        alone = [live for live, fresh in batch.fresh.items() if is_away or fresh.is_begun.done()]
        if alone:
            self._failures.drop_jobs(alone)
            batch.forget({live.id for live in alone})

    async def _write(self, batch: Batch, rows: JournalBatch) -> Sequence[ShardMark]:
        """Writes the rows, less those of jobs that cannot be written; returns the marks that were committed."""
        parts, guilty = [rows], []
        written: Sequence[ShardMark] = ()
        while parts:
            part = parts.pop()
            if not (has_rows(part) or batch.moves_positions):
                continue
            try:
                await self._journal.commit(part)
                written = part.shards
                count_committed(part)
            except ClaimConflictError as error:
                parts.append(self._without_claims(batch, part, set(error.job_ids), str(error)))
            except FencedError as error:
                if not (error.is_leader and part.claims):
                    raise
                parts.append(self._without_claims(batch, part, set(part.claims), str(error)))
            except DataRefusedError as error:
                log.error("rows_refused", reason=str(error), jobs=len(part.jobs))
                batch.moves_positions = False
                halves = _halves(batch, part)
                parts += halves
                guilty += [] if halves else [part]
        if guilty:
            self._accuse(batch, guilty)
        return written

    def _without_claims(self, batch: Batch, part: JournalBatch, refused: set[JobId], why: str) -> JournalBatch:
        guilty = refused & set(part.claims) or set(part.claims)
        log.info("claims_refused", count=len(guilty), reason=why)
        self._failures.drop_jobs([live for live in batch.claims if live.id in guilty])
        batch.forget(guilty)
        others = job_ids_of(part) - guilty
        return rows_of(part, others, batch.running_deltas(others))

    def _accuse(self, batch: Batch, guilty: list[JournalBatch]) -> None:
        """Takes back what the refused jobs did, once everything else is committed."""
        job_ids = {job_id for rows in guilty for job_id in job_ids_of(rows)}
        batch.forget(job_ids)
        attempts = {(JobId(row.job_id), row.task_no, row.attempt) for rows in guilty for row in rows.tasks}
        self._failures.poison([live for live in batch.jobs if live.id in job_ids], attempts)

    async def _publish(self) -> None:
        while True:
            outgoing, waiters = await self._publishing.get()
            while not self._publishing.empty():
                more, waiting = self._publishing.get_nowait()
                outgoing, waiters = outgoing + more, waiters + waiting
            if outgoing:
                await self._send(outgoing)
            tell(waiters)

    async def _send(self, outgoing: list[Outgoing]) -> None:
        try:
            await self._bus.publish(outgoing)
        except (DataError, MessageTooLargeError) as error:
            if len(outgoing) == 1:
                log.error("event_unsendable", event_type=type(outgoing[0].event).__name__, reason=str(error))
                self._failures.unsendable(outgoing[0].event, str(error))
                return
            for out in outgoing:
                await self._send([out])
        else:
            count_sent(outgoing)


def tell(waiters: Iterable[asyncio.Event]) -> None:
    """Wakes those who waited for a batch."""
    for waiter in waiters:
        waiter.set()


def _halves(batch: Batch, rows: JournalBatch) -> list[JournalBatch]:
    """Returns rows that were refused in two parts, or none where they are those of a single job.

    Positions are not moved by parts: they follow with the next batch, and reading an event again is harmless. Commands
    are marked done beside the first half.
    """
    job_ids = sorted(job_ids_of(rows))
    if len(job_ids) < 2:
        return []
    rows = msgspec.structs.replace(rows, shards=[ShardMark(mark.shard, mark.epoch) for mark in rows.shards])
    middle = len(job_ids) // 2
    first, second = set(job_ids[:middle]), set(job_ids[middle:])
    others = msgspec.structs.replace(rows, commands_done=())
    return [
        rows_of(rows, first, batch.running_deltas(first)),
        rows_of(others, second, batch.running_deltas(second)),
    ]


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
