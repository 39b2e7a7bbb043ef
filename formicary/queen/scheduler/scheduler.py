"""Starts due jobs: the leader takes the heads of every unblocked job type, by priority, then age.

Jobs of shards that this queen owns go to its supervisor in process, so that claim, start and first dispatch are one
commit. Jobs of others are claimed here (READY) and their owners woken.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.errors import FormicaryError, UnavailableError
from formicary.events import topics
from formicary.events.jobs import JobLaunched, LeasesReleased
from formicary.ids import JobId, QueenId
from formicary.outage import Outage
from formicary.queen.leases import LeaseKeeper
from formicary.service import Service
from formicary.store.claims import ClaimStore
from formicary.store.jobs import JobStore
from formicary.store.leases import LeaseStore
from formicary.store.rows import JobRecord, LeaseRow, NewJob
from formicary.store.shards import LoadedJob

log = structlog.get_logger(__name__)

#: The lease of the scheduler's leadership.
LEADER = "leader"
#: Jobs claimed in one round.
CLAIM_COUNT = 1000
#: The longest time between two looks, in seconds: the safety net under the wake-ups.
POLL_S = 1.0
#: What a leader that leaves gives the broker to take its word that leadership is free, in seconds.
ANNOUNCE_S = 2.0
#: How long a submission waits for its commit together with its start, in seconds.
START_S = 2.0


#: Between two looks while jobs are due that could not be claimed: their type is blocked, or memory is full.
BLOCKED_POLL_S = 0.1


class Launcher(Protocol):
    """The supervisor of the same process."""

    def owns(self, shard: int) -> bool:
        """Says whether jobs of this shard are launched here."""
        ...

    def room(self) -> int:
        """Returns how many more jobs may be launched now."""
        ...

    def claiming(self) -> set[JobId]:
        """Returns the jobs launched whose claim is not committed yet."""
        ...

    async def launch(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> None:
        """Starts jobs."""
        ...

    def launch_known(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> bool:
        """Starts jobs at once, or says False and starts none."""
        ...

    def submit(self, row: NewJob, record: JobRecord, leader_epoch: int) -> "asyncio.Future[bool] | None":
        """Inserts and starts a job; None: does neither. False: it may not be there."""
        ...


class Scheduler(Service):
    """Claims due jobs while this queen is the leader."""

    def __init__(
        self,
        leases: LeaseStore,
        claims: ClaimStore,
        jobs: JobStore,
        bus: Bus,
        launcher: Launcher,
        clock: Clock,
        *,
        queen_id: QueenId,
        incarnation: str,
        lease_s: float,
    ) -> None:
        super().__init__()
        self._claims = claims
        self._jobs = jobs
        self._bus = bus
        self._launcher = launcher
        self._clock = clock
        self._outage = Outage("scheduler_waits_for_database", clock.boottime)
        self._queen_id = queen_id
        self._keeper = LeaseKeeper(leases, [LEADER], queen_id, incarnation, lease_s, clock, self)
        self._wake = asyncio.Event()
        self._explained: set[JobId] = set()
        #: More jobs are due than the last look could take.
        self._has_backlog = True
        #: Jobs of a limited type wait, as far as the last look knows; whether any job ended since it began.
        self._is_limited = True
        self._has_ended = False

    def leader_epoch(self) -> int | None:
        """Returns the epoch in which this queen leads; None where another does."""
        return self._keeper.epoch(LEADER) if self._keeper.is_valid(LEADER) else None

    async def begin(self, row: NewJob, record: JobRecord) -> bool:
        """Inserts and starts a job that is due at once and of a type without a limit, in one commit.

        Returns:
            Whether it is committed. Where not, as while other jobs wait, nothing is known of it, and inserting it is
            safe.
        """
        epoch = self._idle_epoch(1)
        if epoch is None or not self._launcher.owns(record.shard):
            return False
        begun = self._launcher.submit(row, record, epoch)
        if begun is None:
            return False
        try:
            async with asyncio.timeout(START_S):
                return await begun
        except TimeoutError:
            return False

    def offer(self, records: Sequence[JobRecord]) -> None:
        """Takes jobs that were just inserted, due at once and of types without a limit; wakes where it cannot.

        While nothing else waits they need not be looked for in the database: the claim in the commit of their start
        checks that they are PENDING still, and leaves out those that are not.
        """
        own = [LoadedJob(record, []) for record in records if self._launcher.owns(record.shard)]
        epoch = self._idle_epoch(len(own))
        if epoch is None or len(own) < len(records) or not self._launcher.launch_known(own, epoch):
            self.wake()

    def _idle_epoch(self, count: int) -> int | None:
        """Returns the epoch in which this queen leads, if nothing waits and there is room for ``count`` jobs."""
        if self._has_backlog or self._launcher.room() <= count:
            return None
        return self.leader_epoch()

    def leases_free(self) -> None:
        """Looks at once whether this queen can lead: another one gave its leases back."""
        self._keeper.wake()

    def wake(self) -> None:
        """Makes the next look happen now: a job was submitted, or changed."""
        self._wake.set()

    def ended(self) -> None:
        """Makes the next look happen now if jobs wait for the end of others."""
        self._has_ended = True
        if self._has_backlog or self._is_limited:
            self._wake.set()

    async def taken(self, row: LeaseRow) -> None:
        """Begins to lead."""
        self.wake()

    def lost(self, name: str) -> None:
        """Stops leading; another queen does."""

    async def run(self) -> None:
        """Leads whenever it can, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._keeper.begin()
                group.create_task(self._keeper.run())
                group.create_task(self._schedule())
                group.create_task(self._explain_regularly())
                self.started.set()
        finally:
            await asyncio.shield(self._release())

    async def run_once(self) -> bool:
        """Claims one round of due jobs; returns whether there may be more at once."""
        epoch = self._keeper.epoch(LEADER)
        room = min(CLAIM_COUNT, self._launcher.room())
        if epoch is None or not self._keeper.is_valid(LEADER) or room <= 0:
            self._has_backlog = True
            return False
        due = await self._claims.peek(room, self._launcher.claiming())
        self._has_backlog = len(due) == room
        own = [item for item in due if self._launcher.owns(item.job.shard)]
        if own:
            await self._launcher.launch(own, epoch)
        if len(own) < len(due):
            await self._launch_elsewhere([item for item in due if not self._launcher.owns(item.job.shard)], epoch)
        return self._has_backlog

    async def _launch_elsewhere(self, items: list[LoadedJob], epoch: int) -> None:
        claimed = set(await self._claims.claim_ready([item.job.id for item in items], epoch))
        by_shard: dict[int, list[JobId]] = {}
        for item in items:
            if item.job.id in claimed:
                by_shard.setdefault(item.job.shard, []).append(item.job.id)
        await self._bus.publish(
            [
                Outgoing(topics.launch(shard), str(shard), JobLaunched(shard=shard, job_ids=tuple(job_ids)))
                for shard, job_ids in by_shard.items()
            ]
        )

    async def _schedule(self) -> None:
        while True:
            self._wake.clear()
            self._has_ended = False
            try:
                has_more = await self.run_once()
            except UnavailableError as error:
                self._outage.note(str(error))
                has_more = False
            except FormicaryError as error:
                log.warning("claim_refused", reason=str(error))
                has_more = False
            else:
                self._outage.over()
            if has_more:
                await asyncio.sleep(0)
            else:
                await self._wait(await self._pause_s())

    async def _wait(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _pause_s(self) -> float:
        """Returns how long nothing can be due, at most ``POLL_S``."""
        if self._wake.is_set():
            return POLL_S
        try:
            outlook = await self._claims.outlook()
        except UnavailableError:
            return POLL_S
        self._is_limited = outlook.is_limited
        if self._is_limited and self._has_ended:
            self._wake.set()  # it ended before this was known
        if outlook.next_due_at is None:
            return POLL_S
        return min(POLL_S, max(BLOCKED_POLL_S, (outlook.next_due_at - self._clock.now()).total_seconds()))

    async def _explain_regularly(self) -> None:
        while True:
            await self._clock.sleep(POLL_S)
            if self._keeper.is_valid(LEADER):
                try:
                    await self.explain()
                except UnavailableError as error:
                    log.debug("waiting_not_explained", reason=str(error))

    async def explain(self) -> None:
        """Writes into the heads of blocked job types why they wait."""
        reasons: dict[JobId, str | None] = dict.fromkeys(self._explained)
        for blocked in await self._claims.blocked():
            reason = (
                f"max_concurrency {blocked.max_concurrency} of {blocked.job_type} is in use by job "
                f"{blocked.running_job_id}"
            )
            reasons.update(dict.fromkeys(blocked.pending_job_ids, reason))
        self._explained = {job_id for job_id, reason in reasons.items() if reason is not None}
        if reasons:
            await self._jobs.set_waiting(reasons)

    async def _release(self) -> None:
        try:
            if await self._keeper.release():
                async with asyncio.timeout(ANNOUNCE_S):
                    await self._bus.publish(
                        [Outgoing(topics.ANTS, self._queen_id, LeasesReleased(queen_id=self._queen_id))]
                    )
        except (UnavailableError, TimeoutError) as error:
            log.warning("leadership_not_released", reason=str(error))
