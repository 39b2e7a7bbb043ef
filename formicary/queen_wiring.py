"""The queen's part of the composition root: builds her parts, and starts them in the order in which data flows."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from formicary.artifacts.base import ArtifactStore, ArtifactStoreAwayError
from formicary.artifacts.blobs import Blobs
from formicary.bell import Bell
from formicary.bus import Bus
from formicary.cache_limits import cache_limits
from formicary.clock import Clock
from formicary.events import topics
from formicary.ids import QueenId
from formicary.patience import Patience
from formicary.queen.caches import CacheEviction
from formicary.queen.commands_desk import CommandsDesk
from formicary.queen.inboxes import Inboxes
from formicary.queen.job_retention import JobRetention
from formicary.queen.lifecycle import LifecyclePublisher
from formicary.queen.log_archiver import LogArchiver
from formicary.queen.log_reader import LogSources
from formicary.queen.logs import LogWriter
from formicary.queen.manager.contracts import Stores, Surroundings
from formicary.queen.manager.manager import Manager
from formicary.queen.registry import AntRegistry
from formicary.queen.retention import Retention
from formicary.queen.scheduler.scheduler import Scheduler
from formicary.queen.supervisor.supervisor import Supervisor, SupervisorConfig, SupervisorStores
from formicary.queen.watch import JobWatch, Signals
from formicary.service import Service
from formicary.settings import Settings
from formicary.store.caches import CacheUses
from formicary.store.claims import ClaimStore
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.ended_jobs import EndedJobs
from formicary.store.jobs import JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.lifecycle import LifecycleStore
from formicary.store.log_parts import LogPartStore
from formicary.store.logs import LogStore
from formicary.store.memos import MemoStore
from formicary.store.references import References
from formicary.store.shards import ShardStore

log = structlog.get_logger(__name__)

#: How long a shutdown waits for open batches to be committed, in seconds.
FLUSH_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a queen stands on; opened, and closed after her."""

    settings: Settings
    database: Database
    bus: Bus
    artifacts: ArtifactStore
    clock: Clock
    patience: Patience
    incarnation: str


class Process(Protocol):
    """The process that a queen lives in."""

    async def start(self, service: Service) -> None:
        """Starts a service; it is stopped on the way out."""
        ...

    def on_exit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Has something done on the way out, before what was started or asked for earlier."""
        ...


class Queen:
    """A running queen. Made by ``build``."""

    def __init__(self, ground: Ground, process: Process, queen_id: str, shard_count: int) -> None:
        self._ground = ground
        self._process = process
        self._id = QueenId(queen_id)
        self.shard_count = shard_count
        self._leases = LeaseStore(ground.database)
        self._stores = _stores(ground)
        self._watch, self._log_signals, self._registry = JobWatch(), Signals(), AntRegistry()
        self._bell = Bell(self._watch, ground.bus)
        self._retention = Retention(
            self._stores.artifacts, References(ground.database), ground.clock, ground.settings.artifacts_sweep_s
        )
        self._journal = Journal(ground.database, ground.incarnation)
        self._supervisor = self._make_supervisor()
        self._scheduler = self._make_scheduler()
        self.manager = self._make_manager()

    @classmethod
    async def build(cls, ground: Ground, process: Process, queen_id: str) -> "Queen":
        """Returns a queen that serves."""
        shard_count = await ground.patience.wait_out("database_away", LeaseStore(ground.database).shard_count)
        queen = cls(ground, process, queen_id, shard_count)
        await queen._open_retention()
        await queen._start_logs()
        await queen._start_jobs()
        await queen._start_upkeep()
        await queen._serve_others()
        return queen

    async def _open_retention(self) -> None:
        patience = self._ground.patience

        async def with_database() -> None:
            await patience.wait_out("database_away", self._retention.open)

        await patience.wait_out("artifacts_away", with_database, ArtifactStoreAwayError)

    def _make_supervisor(self) -> Supervisor:
        ground, settings = self._ground, self._ground.settings
        config = SupervisorConfig(
            queen_id=self._id,
            incarnation=ground.incarnation,
            shard_count=self.shard_count,
            lease_s=settings.lease_s,
            ant_lease_s=settings.ant_lease_s,
            artifacts_expire_after_s=settings.artifacts_expire_after_s,
        )
        stores = SupervisorStores(
            journal=self._journal,
            leases=self._leases,
            shards=ShardStore(ground.database),
            commands=self._stores.commands,
            definitions=self._stores.definitions,
            memos=MemoStore(ground.database),
            housekeeping=self._retention,
        )
        return Supervisor(config, ground.bus, stores, self._registry, ground.clock, self._bell)

    def _make_scheduler(self) -> Scheduler:
        ground = self._ground
        return Scheduler(
            self._leases,
            ClaimStore(ground.database),
            self._stores.jobs,
            ground.bus,
            self._supervisor,
            ground.clock,
            queen_id=self._id,
            incarnation=ground.incarnation,
            lease_s=ground.settings.lease_s,
        )

    def _make_manager(self) -> Manager:
        around = Surroundings(
            clock=self._ground.clock,
            wake=self._bell,
            starter=self._bell,
            watch=self._watch,
            log_signals=self._log_signals,
            log_backlog=_LogBacklog(self._ground.bus),
            ants=self._registry,
            waits=self._supervisor,
        )
        return Manager(self._stores, around, self.shard_count)

    async def _start_logs(self) -> None:
        ground = self._ground
        lines = self._stores.logs.lines
        await self._process.start(LogWriter(ground.bus, lines, self._log_signals, ground.clock, ground.incarnation))
        self._process.on_exit(self._store_logs)

    async def _start_jobs(self) -> None:
        self._bell.scheduler, self._bell.supervisor = self._scheduler, self._supervisor
        self._process.on_exit(self._bell.close)
        self._supervisor.on_released = self._scheduler.leases_free
        self._process.on_exit(self._journal.close)
        await self._process.start(self._supervisor)
        self._process.on_exit(self._flush)
        await self._process.start(self._scheduler)

    async def _start_upkeep(self) -> None:
        """Starts what the leading queen does beside jobs."""
        ground, leader = self._ground, self._scheduler
        limits = cache_limits(ground.settings)
        await self._process.start(
            CacheEviction(ground.artifacts, CacheUses(ground.database), leader, ground.clock, limits)
        )
        archive_after_s, is_alone = ground.settings.logs_archive_after_s, self._retention.is_alone
        await self._process.start(
            LogArchiver(self._stores.logs, leader, ground.clock, archive_after_s, is_alone=is_alone)
        )
        self._retention.leadership = leader
        await self._process.start(self._retention)
        if ground.bus.capabilities.survives_process and not ground.bus.capabilities.topics_are_dear:
            listening_since = self._supervisor.listening_since
            await self._process.start(Inboxes(ground.bus, self._registry, leader, ground.clock, listening_since))
        await self._process.start(self._job_retention())

    def _job_retention(self) -> JobRetention:
        ground = self._ground
        return JobRetention(
            EndedJobs(ground.database),
            ground.artifacts,
            self._retention,
            self._scheduler,
            ground.clock,
            keep_s=ground.settings.jobs_retention_s,
            only_published=ground.bus.capabilities.survives_process,
        )

    async def _serve_others(self) -> None:
        """Takes commands of other services, and tells them what happens."""
        ground = self._ground
        self._process.on_exit(self.manager.close)
        await self._process.start(CommandsDesk(ground.bus, self.manager, ground.clock, ground.incarnation))
        if ground.bus.capabilities.survives_process:
            await self._make_topics()
            history = LifecycleStore(ground.database)
            self._bell.lifecycle = LifecyclePublisher(ground.bus, history, self._scheduler, ground.clock)
            await self._process.start(self._bell.lifecycle)

    async def _make_topics(self) -> None:
        try:
            await self._ground.bus.ensure_topics(topics.FOR_OTHERS)
        except BrokerRefusedError as error:
            log.warning("topics_not_made", reason=str(error))

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._supervisor.drain()
        except TimeoutError:
            log.warning("flush_gave_up", after_s=FLUSH_S)

    async def _store_logs(self) -> None:
        """Waits until everything that ants said is stored."""
        clock, bus = self._ground.clock, self._ground.bus
        deadline = clock.boottime() + FLUSH_S
        try:
            while await bus.depth(topics.LOGS, topics.LOG_WRITERS) and clock.boottime() < deadline:
                await clock.sleep(0.01)
        except BrokerUnavailableError as error:
            log.info("lines_left_to_other_queens", reason=error.reason)


class _LogBacklog:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def backlog(self) -> int:
        return await self._bus.depth(topics.LOGS, topics.LOG_WRITERS)


def _stores(ground: Ground) -> Stores:
    database = ground.database
    return Stores(
        database=database,
        definitions=DefinitionStore(database),
        jobs=JobStore(database),
        commands=CommandStore(database),
        logs=LogSources(LogStore(database), LogPartStore(database), ground.artifacts),
        artifacts=Blobs(ground.artifacts),
    )
