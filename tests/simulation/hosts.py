"""Queens and ants as the colony runs them, built of the real parts; each dies and starts again on its own machine."""

import asyncio
import atexit
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, TypeVar

from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant.registration import Identity
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus, Outgoing
from formicary.errors import UnavailableError
from formicary.events import topics
from formicary.events.ants import AntLeft, Held
from formicary.ids import AntId, Incarnation, JobId, QueenId
from formicary.queen.registry import AntRegistry
from formicary.queen.scheduler.scheduler import Scheduler
from formicary.queen.supervisor.supervisor import Supervisor, SupervisorConfig, SupervisorStores
from formicary.queen.watch import News
from formicary.store.rows import JobRecord, NewJob
from tests.simulation.broker import SimBroker
from tests.simulation.loop import Life, Process, ProcessClock
from tests.simulation.machine import Work
from tests.simulation.network import Road
from tests.simulation.scenario import SHARDS, Submission, shard
from tests.simulation.stores import (
    MemoryClaimStore,
    MemoryCommandStore,
    MemoryDefinitionStore,
    MemoryJobStore,
    MemoryLeaseStore,
    MemoryMemoStore,
    MemoryShardStore,
)
from tests.simulation.wardship import InlineExecutor, ProcessExecutor, SimWardship

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

QUEEN_LEASE_S: Final = 3.0
ANT_LEASE_S: Final = 6.0
#: How fast or slow a machine's clock may be.
MAX_DRIFT: Final = 0.03
#: What a process that shall leave gets for it, in seconds.
DRAIN_S: Final = 15.0

_home = tempfile.TemporaryDirectory(prefix="formicary-simulation-")
atexit.register(_home.cleanup)


class Host:
    """A machine with a clock and roads; ``process`` is the newest of its processes."""

    def __init__(self, world: "World", name: str, rng: Random) -> None:
        self.world = world
        self.name = name
        self.lives = 0
        self.process: Process | None = None
        self.broker_road = Road(world.loop, world.weather, f"{name}-broker")
        self._rng = rng
        self._rate = 1.0 + rng.uniform(-MAX_DRIFT, MAX_DRIFT)
        self._boot_s = rng.uniform(100.0, 10_000.0)
        self._wall_s = rng.uniform(-100.0, 100.0)

    def new_process(self, name: str) -> Process:
        """Returns a process with the machine's clock."""
        process = Process(self.world.loop, name, rate=self._rate, boot_s=self._boot_s, wall_s=self._wall_s)
        self.world.processes.append(process)
        return process

    @property
    def is_alive(self) -> bool:
        """Says whether its process lives, frozen or not."""
        return self.process is not None and self.process.life is not Life.DEAD

    def start(self) -> None:
        """Starts its process, unless it lives."""
        if self.is_alive:
            return
        self.lives += 1
        process = self.process = self.new_process(f"{self.name}.{self.lives}")
        self.world.trace.add(f"{process.name} starts")
        process.spawn(self._live(process))

    async def _live(self, process: Process) -> None:
        try:
            await self.serve(process)
        except Exception as error:  # noqa: BLE001 - what ends a process is judged, and is the end of it
            self.world.ended(self, error)
        if process.life is Life.RUNNING:
            self.kill()

    async def serve(self, process: Process) -> None:
        """Is the process; returns or raises at its end."""

    def kill(self) -> None:
        """Kills the process alone."""

    def drain(self) -> None:
        """Asks the process to leave in order."""

    def roads(self) -> list[Road]:
        """Returns the machine's roads."""
        return [self.broker_road]

    def _bus(self, process: Process) -> Bus:
        broker = SimBroker(self.world.server, self.broker_road, topics_are_dear=self.world.topics_are_dear)
        return Bus(broker, process.name, ProcessClock(process))


class QueenHost(Host):
    """One queen."""

    def __init__(self, world: "World", name: str, rng: Random) -> None:
        super().__init__(world, name, rng)
        self.database_road = Road(world.loop, world.weather, f"{name}-database")
        self.scheduler: Scheduler | None = None
        self.supervisor: Supervisor | None = None

    def roads(self) -> list[Road]:
        """Returns the machine's roads."""
        return [self.broker_road, self.database_road]

    async def call(self, statement: Callable[[], T]) -> T:
        """Has a statement executed at the database."""
        return await self.database_road.request(statement, _database_away)

    async def serve(self, process: Process) -> None:
        """Is a queen, as ``wiring`` builds it."""
        bus, clock = self._bus(process), ProcessClock(process)
        supervisor = self.world.parts.supervisor(
            SupervisorConfig(
                queen_id=QueenId(self.name),
                incarnation=process.name,
                shard_count=SHARDS,
                lease_s=QUEEN_LEASE_S,
                ant_lease_s=ANT_LEASE_S,
            ),
            bus,
            self._stores(process.name),
            AntRegistry(),
            clock,
            _Endings(self),
        )
        database = self.world.database
        scheduler = Scheduler(
            MemoryLeaseStore(database, self.call),
            MemoryClaimStore(database, self.call),
            MemoryJobStore(database, self.call),
            bus,
            supervisor,
            clock,
            queen_id=QueenId(self.name),
            incarnation=process.name,
            lease_s=QUEEN_LEASE_S,
        )
        supervisor.on_released = scheduler.leases_free
        await supervisor.start()
        await scheduler.start()
        self.supervisor, self.scheduler = supervisor, scheduler
        ends = [asyncio.ensure_future(supervisor.wait()), asyncio.ensure_future(scheduler.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done() and not end.cancelled():
                end.result()

    def _stores(self, incarnation: str) -> SupervisorStores:
        database = self.world.database
        return SupervisorStores(
            journal=self.world.parts.journal(database, self.call, incarnation),
            leases=MemoryLeaseStore(database, self.call),
            shards=MemoryShardStore(database, self.call),
            commands=MemoryCommandStore(database, self.call),
            definitions=MemoryDefinitionStore(database, self.call),
            memos=MemoryMemoStore(database, self.call),
        )

    def kill(self) -> None:
        """Kills the queen."""
        self.scheduler = self.supervisor = None
        if self.process is not None and self.is_alive:
            self.process.kill()
            self.world.died(self)

    def drain(self) -> None:
        """Lets the queen hand over what it has."""
        if self.process is not None and self.scheduler is not None and self.supervisor is not None:
            self.process.spawn(self._drain(self.scheduler, self.supervisor))

    async def _drain(self, scheduler: Scheduler, supervisor: Supervisor) -> None:
        await scheduler.stop()
        try:
            async with asyncio.timeout(5.0):
                await supervisor.drain()
        except TimeoutError:
            pass
        await supervisor.stop()
        self.kill()

    async def submit(self, submission: Submission) -> None:
        """Takes a job, as the manager does: it starts as it is written, or is written and offered to the scheduler."""
        assert self.process is not None
        clock = ProcessClock(self.process)
        record = submission.definition
        job = NewJob(
            id=submission.job_id,
            job_type_id=record.job_type_id,
            definition_id=record.id,
            shard=shard(submission.job_id),
            priority=submission.priority,
            due_at=clock.now(),
            scheduled_at=None,
            created_at=clock.now(),
            user_name=None,
            params="{}",
            labels="{}",
            rendered_source=None,
        )
        is_limited = self.world.database.job_types[record.job_type_id].max_concurrency is not None
        row = _record(job, submission)
        if not is_limited and self.scheduler is not None and await self.scheduler.begin(job, row):
            self.world.accepted.add(submission.job_id)
            return
        await MemoryJobStore(self.world.database, self.call).insert([job])
        self.world.accepted.add(submission.job_id)
        if self.scheduler is not None:
            self.scheduler.wake() if is_limited else self.scheduler.offer([row])

    async def command(self, job_id: JobId, kind: str) -> None:
        """Takes a command, as the manager does: to a job that nobody has claimed at once, to others as a row."""
        database = self.world.database
        record = await self.call(lambda: database.jobs[job_id].record)
        if _is_refused(kind, record):
            return
        if record.state == "PENDING" or (record.state == "PAUSED" and record.started_at is None):
            change = await MemoryJobStore(database, self.call).change_pending(job_id, kind, "asked for")
            record = await self.call(lambda: database.jobs[job_id].record)
            if change.is_applied or _is_refused(kind, record):
                return
        await MemoryCommandStore(database, self.call).issue(job_id, shard(job_id), kind, "{}", None)
        if self.supervisor is not None:
            self.supervisor.commands.wake()


class _Endings:
    def __init__(self, host: QueenHost) -> None:
        self._host = host

    def ended_many(self, job_ids: Sequence[JobId], news: News) -> None:
        if self._host.scheduler is not None:
            self._host.scheduler.wake()


class AntHost(Host):
    """One ant, with its warden and the processes of its tasks."""

    def __init__(self, world: "World", name: str, rng: Random) -> None:
        super().__init__(world, name, rng)
        self.slots = rng.randint(1, 3)
        clock = self.new_process(f"{name}.machine")
        self.machine = world.parts.machine(world.loop, name, clock, world.checker, self._bury)
        self.machine.on_dead = self._died
        self._inline: InlineExecutor | None = None
        self._ant: Ant | None = None

    async def serve(self, process: Process) -> None:
        """Is an ant, as ``wiring`` builds it."""
        self._inline = InlineExecutor(self.machine)
        executors = {"SHELL": ProcessExecutor(self.machine), "DUMMY": self._inline}
        config = AntConfig(
            id=AntId(self.name),
            home=Path(_home.name),
            slots=self.slots,
            prefetch=self._rng.choice((0, 2, 4)),
            lease_s=self.world.parts.ant_lease_s,
            survives_process=True,
            topics_are_dear=self.world.topics_are_dear,
            shard_count=SHARDS,
            broker_url="sim://",
        )
        names = _names(process.name)
        ant = self._ant = self.world.parts.ant(
            self._bus(process),
            executors,
            LocalStore(Path(_home.name)),
            config,
            ProcessClock(process),
            identity=Identity(
                process=process.name, new_incarnation=lambda ant_id: Incarnation(f"{ant_id}@{next(names)}")
            ),
            make_wardship=lambda config, on_lapse: SimWardship(self.machine, process, config, on_lapse),
        )
        await ant.start()
        await ant.wait()

    @property
    def running(self) -> int:
        """Returns how many tasks run on the machine."""
        return len(self.machine.works) + (0 if self._inline is None else self._inline.live_count)

    def kill(self) -> None:
        """Kills the ant's process; its warden buries it."""
        if self.process is not None:
            self.machine.kill_ant(self.process)

    def crash(self) -> None:
        """Kills ant, warden and tasks at once."""
        self.machine.crash()

    def _died(self) -> None:
        if self._inline is not None:
            self._inline.die()
        self._ant = None
        self.world.died(self)

    def drain(self) -> None:
        """Lets the ant finish what runs, and leave."""
        if self.process is not None and self._ant is not None and self._ant.started.is_set():
            self.process.spawn(self._ant.drain())

    def _bury(self, lives: list[tuple[Incarnation, list[Work]]], gone: Callable[[], None]) -> None:
        warden = self.new_process(f"{self.name}.warden{self.lives}")
        events = [
            AntLeft(
                ant_id=AntId(self.name),
                incarnation=life,
                attempts=tuple(Held(work.shard, work.key[0], work.key[1], work.key[2]) for work in works),
            )
            for life, works in lives
        ]

        async def publish() -> None:
            try:
                async with asyncio.timeout(ANT_LEASE_S * 1.5):
                    await self._bus(warden).publish([Outgoing(topics.ANTS, self.name, event) for event in events])
            except TimeoutError:
                pass
            gone()

        self.world.loop.world_later(self._rng.uniform(0.1, 0.8), lambda: warden.spawn(publish()))


def _names(process: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{process}-{number}"


def _is_refused(kind: str, record: JobRecord) -> bool:
    is_paused = record.state == "PAUSED"
    return record.finished_at is not None or (kind == "pause" and is_paused) or (kind == "resume" and not is_paused)


def _database_away() -> UnavailableError:
    return UnavailableError("the database does not answer")


def _record(job: NewJob, submission: Submission) -> JobRecord:
    return JobRecord(
        job.id, job.job_type_id, submission.definition.job_type, job.definition_id, 1, job.shard, "PENDING",
        job.priority, job.created_at, None, job.params, None, 1, 0, False, None, None, 0.0, None, None, None, None,
        None,
    )  # fmt: skip
