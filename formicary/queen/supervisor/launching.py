"""Starts jobs of own shards: those that this queen's leader claims, and those that a leader elsewhere made READY."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog

from formicary.errors import UnavailableError
from formicary.model.states import JobState
from formicary.queen.supervisor.batch import Fresh
from formicary.queen.supervisor.live import LiveJob, LiveShard
from formicary.queen.supervisor.loading import Prepared, bring_to_life, prepare
from formicary.queen.supervisor.loop import HotLoop
from formicary.queen.supervisor.program import Program, Programs
from formicary.queen.supervisor.rendering import beginning
from formicary.store.rows import JobRecord, NewJob
from formicary.store.shards import LoadedJob, ShardStore

log = structlog.get_logger(__name__)

#: Jobs held in memory beyond which none is launched.
MAX_LIVE_JOBS = 20_000


class Launching:
    """Hands jobs that begin to the hot loop."""

    def __init__(self, store: ShardStore, programs: Programs, loop: HotLoop) -> None:
        self._store = store
        self._programs = programs
        self._loop = loop
        self._wake = asyncio.Event()

    def room(self) -> int:
        """Returns how many more jobs may be launched now; those on their way to the loop are counted."""
        live = sum(len(shard.jobs) for shard in self._loop.shards.values())
        return MAX_LIVE_JOBS - live - len(self._loop.claiming)

    async def launch(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> None:
        """Takes due jobs of own shards: their claim, their start and the first dispatches are one commit."""
        prepared = await prepare(self._programs, [item for item in loaded if not self._is_known(item.job)])
        self._claim(prepared, leader_epoch)

    def launch_known(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> bool:
        """Does what ``launch`` does, at once; says False, and does nothing, where a program is not compiled yet."""
        prepared = []
        for item in loaded:
            program = self._programs.cached(item.job)
            if program is None:
                return False
            prepared.append((item, program))
        self._claim(prepared, leader_epoch)
        return True

    def submit(self, row: NewJob, record: JobRecord, leader_epoch: int) -> "asyncio.Future[bool] | None":
        """Inserts, claims and starts a job of an own shard in one commit.

        Returns:
            What will be True once that is committed and False where it is not known to be; None where nothing is done,
            because its program is not compiled yet or much else is on its way.
        """
        program = self._programs.cached(record)
        if program is None or not self._loop.is_calm() or self._is_known(record):
            return None
        fresh = Fresh(row, self._loop.expect_answer())
        prepared = (LoadedJob(record, []), program)
        self._loop.claiming.add(record.id)
        self._loop.put(lambda now: self._begin_fresh(prepared, fresh, leader_epoch, now))
        return fresh.is_begun

    def wake(self) -> None:
        """Has READY jobs looked for now."""
        self._wake.set()

    async def run(self) -> None:
        """Looks for READY jobs whenever woken."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.adopt_ready()
            except UnavailableError as error:
                log.warning("ready_jobs_not_read", reason=str(error))

    async def adopt_ready(self) -> None:
        """Starts READY jobs of own shards: claimed by the leader elsewhere, and told of by a message or not.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        # Whatever was begun before is committed, so that no READY row of a job that has ended here is read. A shard
        # that is loaded meanwhile begins its READY jobs itself.
        await self._loop.flushed()
        shards = dict(self._loop.shards)
        loaded = [item for item in await self._store.ready_jobs(list(shards)) if not self._is_known(item.job)]
        prepared = (await prepare(self._programs, loaded))[: max(self.room(), 0)]
        if prepared:
            self._loop.put(lambda now: self._adopt(prepared, shards, now))

    def _is_known(self, record: JobRecord) -> bool:
        shard = self._loop.shards.get(record.shard)
        return record.id in self._loop.claiming or (shard is not None and record.id in shard.jobs)

    def _claim(self, prepared: Iterable[Prepared], leader_epoch: int) -> None:
        """Notes before anything else happens that these jobs are being claimed; the same job is never claimed twice."""
        fresh = [entry for entry in prepared if not self._is_known(entry[0].job)]
        self._loop.claiming.update(item.job.id for item, _ in fresh)
        self._loop.put(lambda now: self._begin_claimed(fresh, leader_epoch, now))

    def _begin_claimed(self, prepared: Iterable[Prepared], leader_epoch: int, now: datetime) -> None:
        engine = self._loop.engine
        for item, program in prepared:
            live = self._ready(item, program)
            if live is not None:
                engine.batch.claim(live, leader_epoch)
                engine.step(live, beginning(live, now))

    def _begin_fresh(self, prepared: Prepared, fresh: Fresh, leader_epoch: int, now: datetime) -> None:
        live = self._ready(*prepared)
        if live is None:
            fresh.answer(False)
            return
        self._loop.engine.batch.submit(live, fresh, leader_epoch)
        self._loop.engine.step(live, beginning(live, now))

    def _ready(self, item: LoadedJob, program: Program) -> LiveJob | None:
        """Returns the job, live and READY; None where its shard is gone or has it already."""
        shard = self._loop.shards.get(item.job.shard)
        if shard is None or item.job.id in shard.jobs:
            self._loop.claiming.discard(item.job.id)
            return None
        live = shard.jobs[item.job.id] = bring_to_life(item, program, shard)
        live.run.job.state = JobState.READY
        return live

    def _adopt(self, prepared: Iterable[Prepared], shards: dict[int, LiveShard], now: datetime) -> None:
        for item, program in prepared:
            shard = self._loop.shards.get(item.job.shard)
            if shard is None or shard is not shards.get(item.job.shard) or item.job.id in shard.jobs:
                continue
            live = shard.jobs[item.job.id] = bring_to_life(item, program, shard)
            self._loop.engine.step(live, beginning(live, now))
