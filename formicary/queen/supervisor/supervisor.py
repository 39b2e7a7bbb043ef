"""Owns shards: takes them over, feeds the hot loop with all that happens to their jobs, hands them back.

Parts that run beside the loop, each handing it work: one reader per log of a shard, the listener to ants, the answers
to their heartbeats, the sweep, the fetcher of people's commands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import msgspec
import structlog

from formicary.bus import Bus, Outgoing, Packet
from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.events import topics
from formicary.events.jobs import LeasesReleased
from formicary.ids import JobId, QueenId, shard_of
from formicary.outage import Outage
from formicary.queen.leases import LeaseKeeper
from formicary.queen.registry import AntRegistry
from formicary.queen.supervisor.ants import AntDesk
from formicary.queen.supervisor.balance import recall_waiting
from formicary.queen.supervisor.chores import Chores, Housekeeping
from formicary.queen.supervisor.commands import Commands
from formicary.queen.supervisor.counting import measure
from formicary.queen.supervisor.launching import Launching
from formicary.queen.supervisor.live import LiveShard
from formicary.queen.supervisor.loading import Prepared, prepare
from formicary.queen.supervisor.logs import ShardLogs
from formicary.queen.supervisor.loop import HotLoop, JobEndings
from formicary.queen.supervisor.memos import Memos
from formicary.queen.supervisor.program import Programs
from formicary.queen.supervisor.ready import requirement_of
from formicary.queen.supervisor.sweep import Sweep, waiting_reasons
from formicary.queen.supervisor.takeover import Takeover
from formicary.service import Service
from formicary.store.commands import CommandStore
from formicary.store.definitions import DefinitionStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.memos import MemoStore
from formicary.store.rows import JobRecord, LeaseRow, NewJob
from formicary.store.shards import LoadedJob, ShardStore

log = structlog.get_logger(__name__)

Action = Callable[[], Awaitable[None]]

#: What a queen that leaves gives the broker to take its word that leases are free, in seconds.
ANNOUNCE_S = 2.0
#: Between two looks at what waits, in seconds.
TICK_S = 1.0


class SupervisorStores(msgspec.Struct, frozen=True, kw_only=True):
    """The stores that a supervisor writes to and reads from."""

    journal: Journal
    leases: LeaseStore
    shards: ShardStore
    commands: CommandStore
    definitions: DefinitionStore
    memos: MemoStore
    housekeeping: Housekeeping | None = None


class SupervisorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds; ``incarnation`` is this life of the queen."""

    queen_id: QueenId
    incarnation: str
    shard_count: int
    lease_s: float
    ant_lease_s: float
    artifacts_expire_after_s: float | None = None


class Supervisor(Service):
    """The shards of one queen. Started once it owns what it could take and has loaded their jobs."""

    def __init__(
        self,
        config: SupervisorConfig,
        bus: Bus,
        stores: SupervisorStores,
        registry: AntRegistry,
        clock: Clock,
        endings: JobEndings,
    ) -> None:
        super().__init__()
        self._config = config
        self._bus = bus
        self._stores = stores
        self._registry = registry
        self._clock = clock
        self._outage = Outage("supervisor_waits_for_database", clock.boottime)
        self._programs = Programs(stores.definitions.by_id)
        self.loop = HotLoop(stores.journal, bus, registry, self._programs, clock, endings)
        self.loop.on_drop = self._reload_later
        self.loop.intake.artifacts_expire_after_s = config.artifacts_expire_after_s
        names = [f"shard-{number}" for number in range(config.shard_count)]
        self.keeper = LeaseKeeper(
            stores.leases, names, config.queen_id, config.incarnation, config.lease_s, clock, self, is_spread=True
        )
        margin_s = max(5.0, config.ant_lease_s / 2)
        self._desk = AntDesk(
            config.queen_id, bus, registry, clock, config.ant_lease_s, self._valid_epochs, self._ants_changed
        )
        self._desk.on_released = self._leases_free
        self._sweep = Sweep(
            self.loop.engine, config.lease_s / 3, config.ant_lease_s + margin_s, self._desk.listening_since
        )
        self._takeover = Takeover(self.loop, is_lone=not bus.capabilities.survives_process)
        self._launching = Launching(stores.shards, self._programs, self.loop)
        #: Called when another queen gave leases back.
        self.on_released: Callable[[], None] = lambda: None
        self.commands = Commands(stores.commands, stores.shards, self._programs, self.loop, clock)
        self._memos = Memos(stores.memos, self.loop, clock)
        self._chores = Chores(stores.housekeeping, self.loop, clock, config.queen_id)
        self._logs = ShardLogs(bus, clock, self.loop, self._is_held)
        self._readers: dict[int, list[asyncio.Task[None]]] = {}
        #: The newest life of each shard in this process, where its logs are in memory too.
        self._loaded: dict[int, LiveShard] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Takes shards and serves them until cancelled; what is committed stays, leases are released."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self.loop.run())
                await self._desk.open()
                self._group.create_task(self._desk.run())
                await self.keeper.begin()
                self._group.create_task(self.keeper.run())
                self._group.create_task(self.commands.run())
                self._group.create_task(self._memos.run())
                self._group.create_task(self._chores.run())
                self._group.create_task(self._tick())
                self._group.create_task(self._logs.run_trims())
                self._group.create_task(self._launching.run())
                self._group.create_task(self._even_out())
                self.started.set()
        finally:
            await asyncio.shield(self._release())

    async def drain(self) -> None:
        """Hands every shard over in order: what is open is committed and sent, then the leases are given back."""
        await self._until_available(self.keeper.leave)
        shards = list(self.loop.shards.values())
        for shard in shards:
            self._stop_reading(shard)
            self.loop.detach(shard)
        await self.loop.flushed()
        await self._release()

    def listening_since(self) -> float | None:
        """Returns since when (boot time) this queen has heard whatever ants said; None while it is cut off."""
        return self._desk.listening_since()

    def owns(self, shard: int) -> bool:
        """Says whether jobs of this shard can be launched here."""
        return shard in self.loop.shards

    def room(self) -> int:
        """Returns how many more jobs may be launched now."""
        return self._launching.room()

    def claiming(self) -> set[JobId]:
        """Returns the jobs launched here whose claim is still being committed."""
        return self.loop.claiming

    def is_live(self, job_id: JobId) -> bool:
        """Says whether the job is in memory here, or about to be: its end will be signalled."""
        shard = self.loop.shards.get(shard_of(job_id, self._config.shard_count))
        return job_id in self.loop.claiming or (shard is not None and job_id in shard.jobs)

    def reasons(self, job_id: JobId) -> Mapping[int, str]:
        """Returns why tasks of a live job wait for an ant, by task number; empty for jobs of other queens."""
        for shard in self.loop.shards.values():
            if (live := shard.jobs.get(job_id)) is not None:
                return {
                    task_no: self._registry.explain(requirement_of(live, task_no))
                    for task_no in range(live.program.plan.size)
                    if live.run.is_waiting(task_no)
                }
        return {}

    async def launch(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> None:
        """Takes due jobs of own shards: their claim, their start and the first dispatches are one commit."""
        await self._launching.launch(loaded, leader_epoch)

    def launch_known(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> bool:
        """Does what ``launch`` does, at once; says False, and does nothing, where a program is not compiled yet."""
        return self._launching.launch_known(loaded, leader_epoch)

    def submit(self, row: NewJob, record: JobRecord, leader_epoch: int) -> "asyncio.Future[bool] | None":
        """Inserts, claims and starts a job of an own shard in one commit; see ``Launching.submit``."""
        return self._launching.submit(row, record, leader_epoch)

    async def taken(self, row: LeaseRow) -> None:
        """Loads a shard that was won and starts reading its logs."""
        assert row.shard is not None
        prepared = await prepare(self._programs, await self._stores.shards.load(row.shard))
        shard = LiveShard(row.shard, row.epoch, self._clock.boottime())
        shard.results_position, shard.launch_position = self._positions(row)
        shard.committed_position, shard.committed_launch_position = shard.results_position, shard.launch_position
        if not self._bus.capabilities.survives_process:
            self._loaded[row.shard] = shard
        self.loop.put(lambda now: self._install(shard, prepared, now))

    def _positions(self, row: LeaseRow) -> tuple[bytes | None, bytes | None]:
        """Returns where to read on. Logs in memory begin with this process: only what it committed itself counts."""
        if self._bus.capabilities.survives_process:
            return row.results_position, row.launch_position
        former = self._loaded.get(row.shard) if row.shard is not None else None
        return (None, None) if former is None else (former.committed_position, former.committed_launch_position)

    def _install(self, shard: LiveShard, prepared: Sequence[Prepared], now: datetime) -> None:
        if self.keeper.epoch(f"shard-{shard.number}") != shard.epoch:
            return  # lost, or loaded again, in the meantime
        self._stop_reading(shard)
        self._takeover.install(shard, prepared, now)
        assert self._group is not None
        results = self._logs.read(shard, topics.results(shard.number), shard.results_position, self._results)
        launches = self._logs.read(shard, topics.launch(shard.number), shard.launch_position, self._launches)
        self._readers[shard.number] = [self._group.create_task(results), self._group.create_task(launches)]

    def lost(self, name: str) -> None:
        """Forgets a shard that another queen took."""
        shard = self.loop.shards.get(_number(name))
        if shard is not None:
            self.loop.drop(shard)
            self._stop_reading(shard)

    async def _even_out(self) -> None:
        """Hands surplus shards over, one after the other, so that a queen that joined gets its share."""
        while True:
            await self.keeper.has_surplus.wait()
            self.keeper.has_surplus.clear()
            for name in self.keeper.surplus():
                await self._hand_over(name)

    async def _hand_over(self, name: str) -> None:
        """Lets another queen go on with a shard: its attempts run on, and its next owner inherits them."""
        shard = self.loop.shards.get(_number(name))
        if shard is None:
            return
        self._stop_reading(shard)
        self.loop.detach(shard)
        await self.loop.flushed()
        if shard.is_dropped:
            return
        await self._until_available(lambda: self.keeper.hand_back(name))
        log.info("shard_handed_over", shard=shard.number, epoch=shard.epoch)
        await self._announce_release()

    async def _announce_release(self) -> None:
        event = LeasesReleased(queen_id=self._config.queen_id)
        await self._bus.publish([Outgoing(topics.ANTS, self._config.queen_id, event)])

    def _leases_free(self) -> None:
        self.keeper.wake()
        self.on_released()

    def _results(self, shard: LiveShard, packets: list[Packet], handled: asyncio.Event, now: datetime) -> None:
        handled.set()
        if self.loop.shards.get(shard.number) is not shard:
            return
        for packet in packets:
            self.loop.intake.take(shard, packet, now)

    def _launches(self, shard: LiveShard, packets: list[Packet], handled: asyncio.Event, now: datetime) -> None:
        handled.set()
        shard.launch_position = packets[-1].position
        self.commands.wake()
        self._launching.wake()

    def _ants_changed(self) -> None:
        self.loop.put(self._settle_attempts)

    def _settle_attempts(self, now: datetime) -> None:
        for shard in self.loop.shards.values():
            self._sweep.look(shard)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._sweep.count_lost()
            self.loop.put(self._settle_attempts)
            self.loop.put(lambda _: waiting_reasons(self.loop.engine))
            self.loop.put(lambda _: recall_waiting(self.loop.engine, self.loop.shards.values()))
            self.loop.put(self._move_positions)
            self.commands.wake()
            self._launching.wake()
            measure(self.loop.engine, self.loop.shards.values())

    def _move_positions(self, now: datetime) -> None:
        """Commits how far logs were read that brought nothing to commit."""
        for shard in self.loop.shards.values():
            if shard.has_read_on():
                self.loop.engine.batch.move_positions(shard)

    def _valid_epochs(self) -> dict[int, int]:
        return {number: shard.epoch for number, shard in self.loop.shards.items() if self._is_held(shard)}

    def _is_held(self, shard: LiveShard) -> bool:
        return self.keeper.is_valid(f"shard-{shard.number}")

    def _stop_reading(self, shard: LiveShard) -> None:
        for task in self._readers.pop(shard.number, ()):
            task.cancel()

    def _reload_later(self, shards: list[LiveShard], why: str) -> None:
        log.warning("shards_dropped", shards=[shard.number for shard in shards], reason=why)
        assert self._group is not None
        for shard in shards:
            self._stop_reading(shard)
            self._group.create_task(self._reload(shard.number))

    async def _reload(self, number: int) -> None:
        name = f"shard-{number}"

        async def again() -> None:
            row = await self.keeper.raise_epoch(name)
            if row is not None:
                await self.taken(row)

        await self._until_available(again)

    async def _until_available(self, action: Action) -> None:
        while True:
            try:
                await action()
            except UnavailableError as error:
                self._outage.note(str(error))
                await self._clock.sleep(0.5)
            else:
                return self._outage.over()

    async def _release(self) -> None:
        for shard in list(self.loop.shards.values()):
            self.loop.drop(shard)
        try:
            if await self.keeper.release():
                async with asyncio.timeout(ANNOUNCE_S):
                    await self._announce_release()
        except (UnavailableError, TimeoutError) as error:
            log.warning("leases_not_released", reason=str(error))


def _number(name: str) -> int:
    """Returns the shard of a lease."""
    return int(name.removeprefix("shard-"))
