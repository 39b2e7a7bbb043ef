"""Parts of a queen by themselves, over the doubles: what runs of the simulation have shown to go wrong."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from brokers.base import Position
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.bus import Bus, Outgoing
from formicary.clock import Clock, SystemClock
from formicary.events import topics
from formicary.events.jobs import JobLaunched
from formicary.ids import JobId, QueenId, new_job_id
from formicary.queen.registry import AntRegistry
from formicary.queen.supervisor.commands import Commands
from formicary.queen.supervisor.live import LiveShard
from formicary.queen.supervisor.loop import HotLoop
from formicary.queen.supervisor.program import Programs
from formicary.queen.supervisor.supervisor import Supervisor, SupervisorConfig, SupervisorStores
from formicary.queen.watch import News
from formicary.service import Service
from formicary.store.rows import NewJob
from formicary.testing.clock import FakeClock
from tests.simulation.database import MemoryDatabase
from tests.simulation.scenario import definitions
from tests.simulation.stores import (
    Call,
    MemoryCommandStore,
    MemoryDefinitionStore,
    MemoryJournal,
    MemoryLeaseStore,
    MemoryMemoStore,
    MemoryShardStore,
    at_once,
)

T = TypeVar("T")
SHARD = 2


class Owner:
    """The owner of one shard, as far as commands go; ``looks`` counts its statements about commands."""

    def __init__(self, database: MemoryDatabase, bus: Bus) -> None:
        programs = Programs(MemoryDefinitionStore(database, at_once).by_id)
        self.looks = 0
        self.loop = HotLoop(
            MemoryJournal(database, at_once, "q@1"), bus, AntRegistry(), programs, SystemClock(), _Nobody()
        )
        self.loop.shards[SHARD] = LiveShard(SHARD, 1, 0.0)
        self.commands = Commands(
            MemoryCommandStore(database, self._count),
            MemoryShardStore(database, at_once),
            programs,
            self.loop,
            SystemClock(),
        )

    async def _count(self, statement: Callable[[], T]) -> T:
        self.looks += 1
        return statement()


class _Nobody:
    def ended_many(self, job_ids: Sequence[JobId], news: News) -> None:
        """Is told for nothing."""


@pytest.fixture
def database() -> MemoryDatabase:
    database = MemoryDatabase(4, lambda: datetime.now(UTC))
    for record, limit in definitions():
        database.add_definition(record, limit)
    database.take(list(database.leases), QueenId("q"), "q@1", 60.0, True, None)
    return database


@pytest.fixture
async def owner(database: MemoryDatabase) -> AsyncIterator[Owner]:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    owner = Owner(database, Bus(broker, "q@1", SystemClock()))
    tasks = [asyncio.create_task(owner.loop.run()), asyncio.create_task(owner.commands.run())]
    yield owner
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await broker.close()


def pending_job(database: MemoryDatabase) -> JobId:
    record, _ = definitions()[0]
    job = NewJob(
        id=new_job_id(),
        job_type_id=record.job_type_id,
        definition_id=record.id,
        shard=SHARD,
        priority=0,
        due_at=datetime.now(UTC),
        scheduled_at=None,
        created_at=datetime.now(UTC),
        user_name=None,
        params="{}",
        labels="{}",
        rendered_source=None,
    )
    database.insert([job])
    return JobId(job.id)


async def settle() -> None:
    for _ in range(300):
        await asyncio.sleep(0)


async def test_a_command_for_a_job_that_has_not_begun_waits_without_keeping_its_owner_busy(
    database: MemoryDatabase, owner: Owner
) -> None:
    job_id = pending_job(database)
    database.claim_ready([job_id], 1)
    command = database.issue(job_id, SHARD, "cancel", "{}")

    owner.commands.wake()
    await settle()

    assert not database.outcome(command).is_done
    assert owner.looks <= 2


async def test_a_command_for_a_job_that_was_paused_before_anybody_claimed_it_is_answered(
    database: MemoryDatabase, owner: Owner
) -> None:
    job_id = pending_job(database)
    database.change_pending(job_id, "pause", "asked")
    command = database.issue(job_id, SHARD, "cancel", "{}")

    owner.commands.wake()
    await settle()

    assert database.outcome(command) == (True, "the job is PAUSED")


class _Lasting(MemoryBroker):
    capabilities = replace(MemoryBroker.capabilities, survives_process=True)


def supervisor_of(database: MemoryDatabase, bus: Bus, clock: Clock, call: Call = at_once) -> Supervisor:
    """Returns the supervisor of all shards; ``call`` makes its statements about commands."""
    stores = SupervisorStores(
        journal=MemoryJournal(database, at_once, "q@2"),
        leases=MemoryLeaseStore(database, at_once),
        shards=MemoryShardStore(database, at_once),
        commands=MemoryCommandStore(database, call),
        definitions=MemoryDefinitionStore(database, at_once),
        memos=MemoryMemoStore(database, at_once),
    )
    config = SupervisorConfig(queen_id=QueenId("q"), incarnation="q@2", shard_count=4, lease_s=60.0, ant_lease_s=60.0)
    return Supervisor(config, bus, stores, AntRegistry(), clock, _Nobody())


@pytest.fixture
async def supervisor(database: MemoryDatabase) -> AsyncIterator[Supervisor]:
    """The supervisor of all shards, on a broker that would outlive it."""
    broker = _Lasting(MemoryServer())
    await broker.open()
    supervisor = supervisor_of(database, Bus(broker, "q@2", SystemClock()), SystemClock())
    await supervisor.start()
    yield supervisor
    await supervisor.stop()
    await broker.close()


def in_memory() -> int:
    gc.collect()
    return sum(isinstance(item, LiveShard) and item.number == SHARD for item in gc.get_objects())


async def test_a_shard_that_was_handed_over_leaves_memory(supervisor: Supervisor) -> None:
    await settle()
    assert in_memory() == 1

    await supervisor._hand_over(f"shard-{SHARD}")

    await settle()
    assert in_memory() == 0


class _Slow(_Lasting):
    """Answers a trim when told to; ``trims``: the topics whose trims arrived."""

    def __init__(self) -> None:
        super().__init__(MemoryServer())
        self.trims: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def trim(self, topic: str, before: Position) -> None:
        self.trims.append(topic)
        await self.answers.wait()
        await super().trim(topic, before)


class Trims:
    """The supervisor of all shards, time in hand, before a broker that can be slow to trim.

    ``looks`` counts its looks for commands: each tick has one.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self.clock, self.broker = FakeClock(), _Slow()
        self.supervisor = supervisor_of(database, Bus(self.broker, "q@2", self.clock), self.clock, self._count)
        self.looks = 0

    async def _count(self, statement: Callable[[], T]) -> T:
        self.looks += 1
        return statement()

    async def move(self, *shards: int) -> None:
        """Puts something into the logs of shards that is read, and committed with the next tick."""
        await Bus(self.broker, "somebody", self.clock).publish(
            [Outgoing(topics.launch(shard), str(shard), JobLaunched(shard=shard, job_ids=())) for shard in shards]
        )
        await settle()

    async def tick(self, times: int) -> None:
        for _ in range(times):
            await self.clock.advance(1.0)
            await settle()


@pytest.fixture
async def trims(database: MemoryDatabase) -> AsyncIterator[Trims]:
    trims = Trims(database)
    await trims.broker.open()
    await trims.supervisor.start()
    await settle()
    yield trims
    await trims.supervisor.stop()
    await trims.broker.close()


async def test_a_log_is_trimmed_once_for_each_time_that_it_moved(trims: Trims) -> None:
    await trims.move(SHARD)
    await trims.tick(10)
    assert trims.broker.trims == [topics.launch(SHARD)]

    await trims.move(SHARD)
    await trims.tick(10)
    assert trims.broker.trims == [topics.launch(SHARD)] * 2


async def test_a_broker_that_hangs_over_a_trim_delays_no_tick_and_is_asked_for_one_at_a_time(trims: Trims) -> None:
    trims.broker.answers.clear()
    await trims.move(0, SHARD)
    await trims.tick(3)
    before = trims.looks

    await trims.tick(10)

    assert trims.looks - before == 10
    assert trims.broker.trims == [topics.launch(0)]


async def test_a_supervisor_stops_while_the_broker_hangs_over_a_trim(trims: Trims) -> None:
    trims.broker.answers.clear()
    await trims.move(SHARD)
    await trims.tick(3)
    assert trims.broker.trims

    await asyncio.wait_for(trims.supervisor.stop(), 5.0)


@pytest.mark.parametrize("loss", ["another queen took it", "its lease is over"])
async def test_nothing_is_trimmed_of_a_shard_that_is_lost_in_the_middle_of_a_round(trims: Trims, loss: str) -> None:
    trims.broker.answers.clear()
    await trims.move(0, SHARD)
    await trims.tick(3)

    if loss == "another queen took it":
        trims.supervisor.lost(f"shard-{SHARD}")
    else:
        trims.supervisor.keeper.forget(f"shard-{SHARD}")
    trims.broker.answers.set()
    await trims.tick(1)

    assert trims.broker.trims == [topics.launch(0)]


class _Stubborn(Service):
    async def run(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()


async def test_a_stop_that_is_cancelled_says_so() -> None:
    service = _Stubborn()
    await service.start()
    stop = asyncio.create_task(service.stop())
    await asyncio.sleep(0)
    stop.cancel()

    with pytest.raises(asyncio.CancelledError):
        await stop
    await service.stop()
