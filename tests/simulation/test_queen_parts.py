"""Parts of a queen by themselves, over the doubles: what runs of the simulation have shown to go wrong."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.bus import Bus
from formicary.clock import SystemClock
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
from tests.simulation.database import MemoryDatabase
from tests.simulation.scenario import definitions
from tests.simulation.stores import (
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


@pytest.fixture
async def supervisor(database: MemoryDatabase) -> AsyncIterator[Supervisor]:
    """The supervisor of all shards, on a broker that would outlive it."""
    broker = _Lasting(MemoryServer())
    await broker.open()
    stores = SupervisorStores(
        journal=MemoryJournal(database, at_once, "q@2"),
        leases=MemoryLeaseStore(database, at_once),
        shards=MemoryShardStore(database, at_once),
        commands=MemoryCommandStore(database, at_once),
        definitions=MemoryDefinitionStore(database, at_once),
        memos=MemoryMemoStore(database, at_once),
    )
    config = SupervisorConfig(queen_id=QueenId("q"), incarnation="q@2", shard_count=4, lease_s=60.0, ant_lease_s=60.0)
    bus = Bus(broker, "q@2", SystemClock())
    supervisor = Supervisor(config, bus, stores, AntRegistry(), SystemClock(), _Nobody())
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
