"""The composition root: builds the parts of a process from its settings and holds them together while it lives.

Shutdown runs against the order of data: ants drain first (finish or hand back, report, leave), then the scheduler stops
claiming, the supervisor commits what is open and gives its leases back, the log writer empties its log, and only then
broker, artifact store and database close.
"""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import msgspec
import structlog

from brokers.base import Broker
from brokers.errors import BrokerUnavailableError
from brokers.registry import make_broker
from executors.base import Executor
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant_options import AntOptions, ant_config, executor_options
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.registry import make_store
from formicary.artifacts.waiting import open_when_there
from formicary.bell import Bell
from formicary.bus import Bus
from formicary.cache_limits import cache_limits
from formicary.clock import Clock, SystemClock
from formicary.events import topics
from formicary.exchange import BrokerExchange
from formicary.ids import AntId, QueenId, new_uuid7
from formicary.outage import Outage
from formicary.queen.caches import CacheEviction
from formicary.queen.commands_desk import CommandsDesk
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
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.jobs import JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.lifecycle import LifecycleStore
from formicary.store.log_parts import LogPartStore
from formicary.store.logs import LogStore
from formicary.store.memos import MemoStore
from formicary.store.migrations import migrate
from formicary.store.references import References
from formicary.store.shards import ShardStore

log = structlog.get_logger(__name__)

_Part = TypeVar("_Part")

#: How long a shutdown waits for open batches to be committed, in seconds.
FLUSH_S = 5.0
#: Of the cyclic garbage collector. A queen holds hundreds of thousands of long-lived objects and makes few cycles: with
#: Python's defaults, walking them again and again cost more than half of all its time.
COLLECTOR_THRESHOLDS = (100_000, 50, 100)


class Colony:
    """A running process: a queen, an ant, or both. ``manager`` is None without a queen, ``ant`` without an ant."""

    def __init__(
        self, services: "_Services", manager: Manager | None, ant: Ant | None, database_url: str | None = None
    ) -> None:
        self._services = services
        self._manager = manager
        self.ant = ant
        self.database_url = database_url

    @property
    def manager(self) -> Manager:
        """Returns the manager of the queen in this process."""
        assert self._manager is not None, "this process holds no queen"
        return self._manager

    async def wait(self) -> None:
        """Returns never; raises what ended one of the services."""
        await self._services.wait()


@asynccontextmanager
async def up(settings: Settings, options: AntOptions, give_up_after_s: float | None = None) -> AsyncIterator[Colony]:
    """A queen and one ant in this event loop.

    Args:
        give_up_after_s: how long it may wait for servers that are away; None: as long as it takes.
    """
    async with _Foundation(settings, give_up_after_s) as foundation:
        queen = await foundation.queen("up")
        ant = await foundation.ant(options, "local", queen.shard_count)
        yield Colony(foundation.services, queen.manager, ant, foundation.database_url)


@asynccontextmanager
async def queen(settings: Settings, queen_id: str | None = None) -> AsyncIterator[Colony]:
    """A queen alone."""
    async with _Foundation(settings) as foundation:
        built = await foundation.queen(queen_id or socket.gethostname())
        yield Colony(foundation.services, built.manager, None, foundation.database_url)


@asynccontextmanager
async def ant(settings: Settings, options: AntOptions) -> AsyncIterator[Colony]:
    """An ant alone; it has no database."""
    async with _Foundation(settings) as foundation:
        built = await foundation.ant(options, f"{socket.gethostname()}-{os.getpid()}", 16)
        yield Colony(foundation.services, None, built)


class _Queen(msgspec.Struct):
    manager: Manager
    shard_count: int


class _Services:
    """Long-lived tasks of the process; the first that fails ends the wait."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def watch(self, waiting: asyncio.Task[None]) -> None:
        """Adds a task whose end is the end of the process."""
        self._tasks.append(waiting)

    async def wait(self) -> None:
        """Returns when one task ended; raises its error."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    def close(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()


class _Foundation:
    """Broker, artifacts, and (for a queen) the database, opened on demand and closed in reverse order."""

    def __init__(self, settings: Settings, give_up_after_s: float | None = None) -> None:
        self._settings = settings
        self._give_up_after_s = give_up_after_s
        self._clock: Clock = SystemClock()
        self._incarnation = new_uuid7()
        self._stack = AsyncExitStack()
        self._broker: Broker | None = None
        self._bus: Bus | None = None
        self._artifacts: ArtifactStore | None = None
        self.services = _Services()
        self.database_url: str | None = None

    async def __aenter__(self) -> "_Foundation":
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        try:
            await self._open_broker()
            await self._open_artifacts()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.services.close()
        await asyncio.shield(self._stack.aclose())

    async def queen(self, queen_id: str) -> _Queen:
        """Starts a queen: database, log writer, supervisor, scheduler, manager."""
        database = await self._open_database()
        leases = LeaseStore(database)
        shard_count = await leases.shard_count()
        stores = Stores(
            database=database,
            definitions=DefinitionStore(database),
            jobs=JobStore(database),
            commands=CommandStore(database),
            logs=LogSources(LogStore(database), LogPartStore(database), self._need(self._artifacts)),
            artifacts=Blobs(self._need(self._artifacts)),
        )
        retention = Retention(stores.artifacts, References(database), self._clock, self._settings.artifacts_sweep_s)
        await retention.open()
        bus = self._need(self._bus)
        watch, log_signals, registry = JobWatch(), Signals(), AntRegistry()
        writer = LogWriter(bus, stores.logs.lines, log_signals, self._clock, self._incarnation)
        await self._start(writer)
        self._stack.push_async_callback(self._store_logs, bus)
        bell = Bell(watch, bus)
        journal = Journal(database, self._incarnation)
        self._stack.push_async_callback(journal.close)
        supervisor = Supervisor(
            SupervisorConfig(
                queen_id=QueenId(queen_id),
                incarnation=self._incarnation,
                shard_count=shard_count,
                lease_s=self._settings.lease_s,
                ant_lease_s=self._settings.ant_lease_s,
                artifacts_expire_after_s=self._settings.artifacts_expire_after_s,
            ),
            bus,
            SupervisorStores(
                journal=journal,
                leases=leases,
                shards=ShardStore(database),
                commands=stores.commands,
                definitions=stores.definitions,
                memos=MemoStore(database),
                housekeeping=retention,
            ),
            registry,
            self._clock,
            bell,
        )
        scheduler = Scheduler(
            leases,
            ClaimStore(database),
            stores.jobs,
            bus,
            supervisor,
            self._clock,
            queen_id=QueenId(queen_id),
            incarnation=self._incarnation,
            lease_s=self._settings.lease_s,
        )
        bell.scheduler, bell.supervisor = scheduler, supervisor
        supervisor.on_released = scheduler.leases_free
        await self._start(supervisor)
        self._stack.push_async_callback(self._flush, supervisor)
        await self._start(scheduler)
        limits = cache_limits(self._settings)
        await self._start(
            CacheEviction(self._need(self._artifacts), CacheUses(database), scheduler, self._clock, limits)
        )
        await self._start(LogArchiver(stores.logs, scheduler, self._clock, self._settings.logs_archive_after_s))
        retention.leadership = scheduler
        await self._start(retention)
        around = Surroundings(
            clock=self._clock,
            wake=bell,
            starter=bell,
            watch=watch,
            log_signals=log_signals,
            log_backlog=_LogBacklog(bus),
            ants=registry,
            waits=supervisor,
        )
        manager = Manager(stores, around, shard_count)
        self._stack.push_async_callback(manager.close)
        await self._start(CommandsDesk(bus, manager, self._clock, self._incarnation))
        if bus.capabilities.survives_process:
            bell.lifecycle = LifecyclePublisher(bus, LifecycleStore(database), scheduler, self._clock)
            await self._start(bell.lifecycle)
        return _Queen(manager, shard_count)

    async def ant(self, options: AntOptions, default_id: str, shard_count: int) -> Ant:
        """Starts an ant; it is drained on the way out."""
        bus = self._need(self._bus)
        own_id = AntId(options.id or default_id)
        cache_limit_bytes = cache_limits(self._settings).job_type_bytes
        config = ant_config(self._settings, options, own_id, bus.capabilities, shard_count, cache_limit_bytes)
        executors = await self._executors(options, config)
        built = Ant(bus, executors, self._need(self._artifacts), config, self._clock)
        await self._start(built)
        self._stack.push_async_callback(built.drain)
        return built

    async def _executors(self, options: AntOptions, config: AntConfig) -> Mapping[str, Executor]:
        reply_topic = topics.replies(config.id, config.topics_are_dear)
        broker, bus = self._need(self._broker), self._need(self._bus)
        exchange = BrokerExchange(broker, bus, self._clock, None if config.topics_are_dear else reply_topic)
        self._stack.push_async_callback(exchange.close)
        chosen = executor_options(self._settings, options, config.folder)
        executors = make_executors(options.methods, replace(chosen, exchange=exchange, reply_topic=reply_topic))
        for executor in set(executors.values()):
            self._stack.push_async_callback(executor.close)
        return executors

    async def _start(self, service: Service) -> None:
        self._stack.push_async_callback(service.stop)
        await service.start()
        self.services.watch(asyncio.create_task(service.wait()))

    async def _flush(self, supervisor: Supervisor) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await supervisor.drain()
        except TimeoutError:
            log.warning("flush_gave_up", after_s=FLUSH_S)

    async def _store_logs(self, bus: Bus) -> None:
        """Waits until everything that ants said is stored."""
        deadline = self._clock.boottime() + FLUSH_S
        while await bus.depth(topics.LOGS, topics.LOG_WRITERS) and self._clock.boottime() < deadline:
            await self._clock.sleep(0.01)

    async def _open_broker(self) -> None:
        self._broker = make_broker(self._settings.broker_url)
        self._stack.push_async_callback(self._broker.close)
        began, limit_s, pause_s = self._clock.boottime(), self._give_up_after_s, 0.1
        outage = Outage("broker_away", self._clock.boottime)
        while True:
            try:
                await self._broker.open()
                break
            except BrokerUnavailableError as error:
                if limit_s is not None and self._clock.boottime() - began + pause_s > limit_s:
                    raise
                outage.note(error.reason)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)
        outage.over()
        self._bus = Bus(self._broker, self._incarnation, self._clock)

    async def _open_artifacts(self) -> None:
        self._artifacts = make_store(self._settings.artifacts_url)
        self._stack.push_async_callback(self._artifacts.close)
        await open_when_there(self._artifacts, self._clock, self._give_up_after_s)

    async def _open_database(self) -> Database:
        url = self._settings.database_url
        if url is None:
            embedded = EmbeddedPostgres(self._settings.home / "postgres")
            self._stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        self.database_url = url
        database = Database(url)
        self._stack.push_async_callback(database.close)
        await database.wait_until_open(self._give_up_after_s)
        await migrate(database)
        return database

    def _need(self, part: _Part | None) -> _Part:
        assert part is not None, "the foundation is not open"
        return part


class _LogBacklog:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def backlog(self) -> int:
        return await self._bus.depth(topics.LOGS, topics.LOG_WRITERS)
