"""The composition root: builds the parts of a process from its settings and holds them together while it lives.

Shutdown runs against the order of data: ants drain first (finish or hand back, report, leave), then the scheduler stops
claiming, the supervisor commits what is open and gives its leases back, the log writer empties its log, and only then
broker, artifact store and database close.
"""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import structlog

from brokers.base import Broker
from brokers.errors import BrokerUnavailableError
from brokers.registry import make_broker
from executors.base import Executor
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant_options import AntOptions, ant_config, executor_options
from formicary.artifacts.base import ArtifactStore, ArtifactStoreAwayError
from formicary.artifacts.registry import make_store
from formicary.bus import Bus
from formicary.cache_limits import cache_limits
from formicary.clock import Clock, SystemClock
from formicary.events import topics
from formicary.exchange import BrokerExchange
from formicary.ids import SHARD_COUNT, AntId, new_uuid7
from formicary.patience import Patience
from formicary.queen.manager.manager import Manager
from formicary.queen_wiring import Ground, Queen
from formicary.service import Service
from formicary.settings import Settings
from formicary.store.database import Database
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.migrations import migrate

log = structlog.get_logger(__name__)

_Part = TypeVar("_Part")

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
        built = await foundation.ant(options, f"{socket.gethostname()}-{os.getpid()}", SHARD_COUNT)
        yield Colony(foundation.services, None, built)


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
        self._clock: Clock = SystemClock()
        self._patience = Patience(self._clock, give_up_after_s)
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

    async def queen(self, queen_id: str) -> Queen:
        """Starts a queen, on the database."""
        ground = Ground(
            settings=self._settings,
            database=await self._open_database(),
            bus=self._need(self._bus),
            artifacts=self._need(self._artifacts),
            clock=self._clock,
            patience=self._patience,
            incarnation=self._incarnation,
        )
        return await Queen.build(ground, self, queen_id)

    async def ant(self, options: AntOptions, default_id: str, shard_count: int) -> Ant:
        """Starts an ant; it is drained on the way out."""
        bus = self._need(self._bus)
        own_id = AntId(options.id or default_id)
        cache_limit_bytes = cache_limits(self._settings).job_type_bytes
        config = ant_config(self._settings, options, own_id, bus.capabilities, shard_count, cache_limit_bytes)
        executors = await self._executors(options, config)
        built = Ant(bus, executors, self._need(self._artifacts), config, self._clock)
        await self.start(built)
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

    async def start(self, service: Service) -> None:
        """Starts a service; it is stopped on the way out, and its end is the end of the process."""
        self._stack.push_async_callback(service.stop)
        await service.start()
        self.services.watch(asyncio.create_task(service.wait()))

    def on_exit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Has something done on the way out, before what was started or asked for earlier."""
        self._stack.push_async_callback(callback)

    async def _open_broker(self) -> None:
        self._broker = make_broker(self._settings.broker_url)
        self._stack.push_async_callback(self._broker.close)
        await self._patience.wait_out("broker_away", self._broker.open, BrokerUnavailableError)
        self._bus = Bus(self._broker, self._incarnation, self._clock)

    async def _open_artifacts(self) -> None:
        self._artifacts = make_store(self._settings.artifacts_url)
        self._stack.push_async_callback(self._artifacts.close)
        await self._patience.wait_out("artifacts_away", self._artifacts.open, ArtifactStoreAwayError)

    async def _open_database(self) -> Database:
        url = self._settings.database_url
        if url is None:
            embedded = EmbeddedPostgres(self._settings.home / "postgres")
            self._stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        self.database_url = url
        database = Database(url)
        self._stack.push_async_callback(database.close)
        await self._patience.wait_out("database_away", database.open)
        await self._patience.wait_out("database_away", lambda: migrate(database))
        return database

    def _need(self, part: _Part | None) -> _Part:
        assert part is not None, "the foundation is not open"
        return part
