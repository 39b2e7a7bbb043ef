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
from formicary.ids import JobId, QueenId
from formicary.model.states import JobState
from formicary.queen.leases import LeaseKeeper
from formicary.queen.registry import AntRegistry
from formicary.queen.supervisor.ants import AntDesk
from formicary.queen.supervisor.commands import Commands
from formicary.queen.supervisor.intake import refused_result
from formicary.queen.supervisor.live import LiveShard, is_dispatched
from formicary.queen.supervisor.loading import Prepared, bring_to_life, prepare
from formicary.queen.supervisor.logs import ShardLogs
from formicary.queen.supervisor.loop import HotLoop, JobEndings
from formicary.queen.supervisor.program import Programs
from formicary.queen.supervisor.rendering import beginning
from formicary.queen.supervisor.sweep import Sweep, waiting_reasons
from formicary.service import Service
from formicary.states.inputs import AttemptLost
from formicary.store.commands import CommandStore
from formicary.store.definitions import DefinitionStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.rows import JobRecord, LeaseRow
from formicary.store.shards import LoadedJob, ShardStore

log = structlog.get_logger(__name__)

Action = Callable[[], Awaitable[None]]

#: Jobs held in memory beyond which none is launched.
MAX_LIVE_JOBS = 20_000
#: What a task says whose result the database refused.
POISON_MESSAGE = "the result holds a value that cannot be stored; check the outputs for control characters and sizes"
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


class SupervisorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds; ``incarnation`` is this life of the queen."""

    queen_id: QueenId
    incarnation: str
    shard_count: int
    lease_s: float
    ant_lease_s: float


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
        self._programs = Programs(stores.definitions.by_id)
        self.loop = HotLoop(stores.journal, bus, registry, self._programs, clock, endings)
        self.loop.on_drop = self._reload_later
        names = [f"shard-{number}" for number in range(config.shard_count)]
        self.keeper = LeaseKeeper(
            stores.leases, names, config.queen_id, config.incarnation, config.lease_s, clock, self, is_spread=True
        )
        margin_s = max(5.0, config.ant_lease_s / 2)
        self._sweep = Sweep(self.loop.engine, config.lease_s / 3, config.ant_lease_s + margin_s)
        self._desk = AntDesk(config.queen_id, bus, registry, clock, self._valid_epochs, self._ants_changed)
        self._desk.on_released = self._leases_free
        #: Called when another queen gave leases back.
        self.on_released: Callable[[], None] = lambda: None
        self.commands = Commands(stores.commands, stores.shards, self._programs, self.loop, clock)
        self._logs = ShardLogs(bus, clock, self.loop)
        self._readers: dict[int, list[asyncio.Task[None]]] = {}
        self._was_loaded: set[int] = set()
        self._launched = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Takes shards and serves them until cancelled; what is committed stays, leases are released."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self.loop.run())
                await self._desk.open()
                self._group.create_task(self._desk.run())
                await self._until_available(self.keeper.run_once)
                self._group.create_task(self.keeper.run())
                self._group.create_task(self.commands.run())
                self._group.create_task(self._tick())
                self._group.create_task(self._adopt_regularly())
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

    def owns(self, shard: int) -> bool:
        """Says whether jobs of this shard can be launched here."""
        return shard in self.loop.shards

    def room(self) -> int:
        """Returns how many more jobs may be launched now."""
        return MAX_LIVE_JOBS - sum(len(shard.jobs) for shard in self.loop.shards.values())

    def claiming(self) -> set[JobId]:
        """Returns the jobs launched here whose claim is still being committed."""
        return self.loop.claiming

    def reasons(self, job_id: JobId) -> Mapping[int, str]:
        """Returns why tasks of a live job wait for an ant, by task number; empty for jobs of other queens."""
        for shard in self.loop.shards.values():
            if (live := shard.jobs.get(job_id)) is not None:
                return {
                    task_no: self._registry.explain(live.program.tasks[task_no].requirement)
                    for task_no in range(live.program.plan.size)
                    if live.run.is_waiting(task_no)
                }
        return {}

    async def launch(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> None:
        """Takes due jobs of own shards: their claim, their start and the first dispatches are one commit."""
        prepared = await prepare(self._programs, [item for item in loaded if not self._is_live(item.job)])
        self.loop.claiming.update(item.job.id for item, _ in prepared)
        self.loop.put(lambda now: self._begin(prepared, leader_epoch, now))

    def launch_known(self, loaded: Sequence[LoadedJob], leader_epoch: int) -> bool:
        """Does what ``launch`` does, at once; says False, and does nothing, where a program is not compiled yet."""
        prepared = []
        for item in loaded:
            program = self._programs.cached(item.job)
            if program is None:
                return False
            prepared.append((item, program))
        self.loop.claiming.update(item.job.id for item in loaded)
        self.loop.put(lambda now: self._begin(prepared, leader_epoch, now))
        return True

    def _is_live(self, record: JobRecord) -> bool:
        shard = self.loop.shards.get(record.shard)
        return shard is not None and record.id in shard.jobs

    def _begin(self, prepared: Sequence[Prepared], leader_epoch: int | None, now: datetime) -> None:
        engine = self.loop.engine
        for item, program in prepared:
            shard = self.loop.shards.get(item.job.shard)
            if shard is None:
                self.loop.claiming.discard(item.job.id)
            if shard is None or item.job.id in shard.jobs:
                continue
            live = shard.jobs[item.job.id] = bring_to_life(item, program, shard)
            if leader_epoch is not None:
                live.run.job.state = JobState.READY
                engine.batch.claim(live, leader_epoch)
            engine.step(live, beginning(live, now))

    async def taken(self, row: LeaseRow) -> None:
        """Loads a shard that was won and starts reading its logs."""
        assert row.shard is not None
        prepared = await prepare(self._programs, await self._stores.shards.load(row.shard))
        shard = LiveShard(row.shard, row.epoch, self._clock.boottime())
        if self._bus.capabilities.survives_process or row.shard in self._was_loaded:
            shard.results_position = shard.committed_position = row.results_position
            shard.launch_position = shard.committed_launch_position = row.launch_position
        self._was_loaded.add(row.shard)
        self.loop.put(lambda now: self._install(shard, prepared, now))
        assert self._group is not None
        results = self._logs.read(shard, topics.results(row.shard), shard.results_position, self._results)
        launches = self._logs.read(shard, topics.launch(row.shard), shard.launch_position, self._launches)
        self._readers[row.shard] = [self._group.create_task(results), self._group.create_task(launches)]

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

    def _install(self, shard: LiveShard, prepared: Sequence[Prepared], now: datetime) -> None:
        self.loop.shards[shard.number] = shard
        for item, program in prepared:
            live = shard.jobs[item.job.id] = bring_to_life(item, program, shard)
            engine = self.loop.engine
            for cell in live.run.tasks:
                if is_dispatched(cell) and cell.incarnation is not None:
                    shard.inherited[(live.id, cell.no, cell.attempt)] = cell.incarnation
                    if (ant := self._registry.get(cell.incarnation)) is not None:
                        ant.in_flight += 1
            if item.job.state == JobState.READY:
                engine.step(live, beginning(live, now))
            else:
                engine.carry_out(live, live.run.recover(now))
                engine.batch.touch(live)
        self._fail_poisoned(shard, now)
        if not self._bus.capabilities.survives_process:
            self._lose_the_dead(shard, now)
        log.debug("shard_loaded", shard=shard.number, epoch=shard.epoch, jobs=len(prepared))

    def _lose_the_dead(self, shard: LiveShard, now: datetime) -> None:
        """Takes attempts for lost whose ant lived in a process that is no more, and the broker with it."""
        for key, incarnation in list(shard.inherited.items()):
            if self._registry.get(incarnation) is None:
                job_id, task_no, attempt = key
                self.loop.engine.release(shard, key)
                lost = AttemptLost(task_no=task_no, attempt=attempt, counts=False, at=now)
                self.loop.engine.step(shard.jobs[job_id], lost)

    def _fail_poisoned(self, shard: LiveShard, now: datetime) -> None:
        """Fails attempts whose results the database refused before this shard was loaded."""
        for key in [key for key in self.loop.poisoned if key[0] in shard.jobs]:
            self.loop.poisoned.discard(key)
            job_id, task_no, attempt = key
            self.loop.engine.release(shard, key)
            self.loop.engine.step(shard.jobs[job_id], refused_result(task_no, attempt, POISON_MESSAGE, now))

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
        self._launched.set()

    def _ants_changed(self) -> None:
        self.loop.put(self._settle_attempts)

    def _settle_attempts(self, now: datetime) -> None:
        outgoing: list[Outgoing] = []
        for shard in self.loop.shards.values():
            outgoing.extend(self._sweep.look(shard))
        if outgoing and self._group is not None:
            self._group.create_task(self._bus.publish(outgoing))

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._sweep.count_lost()
            self.loop.put(self._settle_attempts)
            self.loop.put(lambda _: waiting_reasons(self.loop.engine))
            self.loop.put(self._move_positions)
            self.commands.wake()
            self._launched.set()
            await self._logs.trim(self.loop.shards.values())

    async def _adopt_regularly(self) -> None:
        while True:
            await self._launched.wait()
            self._launched.clear()
            await self._adopt_ready()

    async def _adopt_ready(self) -> None:
        """Starts READY jobs of own shards: claimed by the leader elsewhere, and told of by a message or not."""
        # Whatever was begun before is committed, so that no READY row of a job that has ended here is read.
        await self.loop.flushed()
        try:
            loaded = await self._stores.shards.ready_jobs(list(self.loop.shards))
        except UnavailableError as error:
            log.warning("ready_jobs_not_read", reason=str(error))
            return
        prepared = await prepare(self._programs, loaded)
        if prepared:
            self.loop.put(lambda now: self._begin(prepared, None, now))

    def _move_positions(self, now: datetime) -> None:
        """Commits how far logs were read that brought nothing to commit."""
        for shard in self.loop.shards.values():
            if shard.has_read_on():
                self.loop.engine.batch.move_positions(shard)

    def _valid_epochs(self) -> dict[int, int]:
        return {
            number: shard.epoch for number, shard in self.loop.shards.items() if self.keeper.is_valid(f"shard-{number}")
        }

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
                log.warning("database_away", reason=str(error))
                await self._clock.sleep(0.5)
            else:
                return

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
