"""The cursor over the history: complete, in order, and moved by the leader only."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.jobs import JobStore
from formicary.store.leases import LeaseStore
from formicary.store.lifecycle import Change, LifecycleStore
from formicary.store.rows import NewJob

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

_INSERT = "INSERT INTO job_history (job_id, at, state, attempt) VALUES ($1::uuid, now(), $2, 1)"


@pytest.fixture
async def job(database: Database, make_job: Callable[..., NewJob]) -> NewJob:
    job = make_job()
    await JobStore(database).insert([job])
    return job


async def write(database: Database, job: NewJob, state: str) -> None:
    await database.fetch(_INSERT, job.id, state)


@asynccontextmanager
async def under_way(database: Database, job: NewJob, state: str) -> "AsyncIterator[asyncpg.transaction.Transaction]":
    """A transaction that has written a change and is not over yet."""
    async with database.connection() as connection:
        transaction = await _begin(connection)
        await connection.execute(_INSERT, job.id, state)
        yield transaction


async def _begin(connection: "PoolConnectionProxy[asyncpg.Record]") -> "asyncpg.transaction.Transaction":
    transaction = connection.transaction()
    await transaction.start()
    return transaction


async def read_all(store: LifecycleStore) -> list[Change]:
    """Reads until nothing more comes."""
    changes: list[Change] = []
    for _ in range(5):
        changes += await store.read(changes[-1].seq if changes else 0, 100)
    return changes


def states(changes: list[Change]) -> list[str]:
    return [change.state for change in changes]


async def test_changes_come_in_the_order_of_writing_with_their_job_type(database: Database, job: NewJob) -> None:
    await write(database, job, "READY")
    await write(database, job, "EXECUTING")

    changes = await LifecycleStore(database).read(0, 100)

    assert states(changes) == ["PENDING", "READY", "EXECUTING"]
    assert {(change.job_id, change.job_type, change.task_type) for change in changes} == {(job.id, "etl", None)}


async def test_a_page_continues_behind_the_former(database: Database, job: NewJob) -> None:
    store = LifecycleStore(database)
    await write(database, job, "READY")
    (first,) = await store.read(0, 1)

    assert states(await store.read(first.seq, 100)) == ["READY"]


async def test_a_change_under_way_holds_up_those_behind_it(database: Database, job: NewJob) -> None:
    store = LifecycleStore(database)
    async with under_way(database, job, "READY") as transaction:
        await write(database, job, "EXECUTING")
        before = await read_all(store)
        await transaction.commit()

    assert states(before) == ["PENDING"]
    assert states(await read_all(store)) == ["PENDING", "READY", "EXECUTING"]


async def test_a_change_that_was_rolled_back_holds_up_nothing(database: Database, job: NewJob) -> None:
    store = LifecycleStore(database)
    async with under_way(database, job, "READY") as transaction:
        await write(database, job, "EXECUTING")
        before = await read_all(store)
        await transaction.rollback()

    assert states(before) == ["PENDING"]
    assert states(await read_all(store)) == ["PENDING", "EXECUTING"]


async def test_a_hole_seen_first_while_its_transaction_is_the_newest_is_not_skipped(
    database: Database, job: NewJob
) -> None:
    """The upper bound of a snapshot lies below transactions that were begun after the last one that ended."""
    store = LifecycleStore(database)
    async with database.connection() as connection:
        transaction = await _begin(connection)
        await connection.execute("SELECT pg_current_xact_id()")
        async with under_way(database, job, "READY") as newest:
            await connection.execute(_INSERT, job.id, "EXECUTING")
            await transaction.commit()
            before = await read_all(store)
            await newest.commit()

    assert states(before) == ["PENDING"]
    assert states(await read_all(store)) == ["PENDING", "READY", "EXECUTING"]


async def test_only_the_leader_moves_the_cursor_and_only_forward(database: Database, leases: LeaseStore) -> None:
    store = LifecycleStore(database)

    assert await store.advance(7, leader_epoch=1)
    assert not await store.advance(9, leader_epoch=2)
    assert not await store.advance(5, leader_epoch=1)

    assert await store.cursor() == 7


async def test_a_command_is_issued_once_per_key(database: Database, job: NewJob) -> None:
    store = CommandStore(database)
    issue = [store.issue_once(job.id, job.shard, "cancel", "{}", None, "mine") for _ in range(4)]

    issued = await asyncio.gather(*issue)
    assert {each.job_id for each in issued} == {job.id}
    assert [each.is_new for each in issued].count(True) == 1
    assert len(await store.open([job.shard])) == 1
    assert await store.first_of("mine") == job.id
    assert await store.first_of("another") is None


async def test_a_key_of_a_command_says_whose_it_was(
    database: Database, job: NewJob, make_job: Callable[..., NewJob]
) -> None:
    store, other = CommandStore(database), make_job()
    await JobStore(database).insert([other])
    await store.issue_once(job.id, job.shard, "cancel", "{}", None, "mine")

    assert await store.issue_once(other.id, other.shard, "cancel", "{}", None, "mine") == (job.id, False)
    assert [command.job_id for command in await store.open(range(16))] == [job.id]
