"""The store that queens use, twice: over Postgres, and the double of the simulation. The same tests hold for both."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
import pytest

from formicary.ids import new_job_id, new_uuid7, shard_of
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.claims import ClaimStore
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.jobs import JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.migrations import migrate
from formicary.store.rows import NewJob
from formicary.store.shards import ShardStore
from tests.simulation.database import MemoryDatabase
from tests.simulation.stores import (
    MemoryClaimStore,
    MemoryCommandStore,
    MemoryDefinitionStore,
    MemoryJobStore,
    MemoryJournal,
    MemoryLeaseStore,
    MemoryShardStore,
    at_once,
)

SHARDS = 4


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """The stores of one database."""

    leases: LeaseStore
    shards: ShardStore
    commands: CommandStore
    claims: ClaimStore
    jobs: JobStore
    definitions: DefinitionStore
    journal: Callable[[str], Journal]
    save: Callable[[JobDefinition], Any]

    def job(self, definition: DefinitionRecord, **changes: Any) -> NewJob:
        """Returns a submission that is due now."""
        job_id, now = new_job_id(), datetime.now(UTC)
        fields: dict[str, Any] = {
            "id": job_id,
            "job_type_id": definition.job_type_id,
            "definition_id": definition.id,
            "shard": shard_of(job_id, SHARDS),
            "priority": 0,
            "due_at": now,
            "scheduled_at": None,
            "created_at": now,
            "user_name": None,
            "params": "{}",
            "labels": "{}",
            "rendered_source": None,
        }
        return NewJob(**(fields | changes))


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = asyncio.run(server.start())
    asyncio.run(_make_template(url))
    yield url
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)  # nobody needs these databases
    asyncio.run(server.stop())


async def _make_template(url: str) -> None:
    await _administer(url, "CREATE DATABASE blank")
    database = Database(_named(url, "blank"), min_size=1, max_size=1)
    await database.open()
    await migrate(database, SHARDS)
    await database.close()


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where Postgres is; None: in memory."""
    return None if request.param == "memory" else str(request.getfixturevalue("server_url"))


@pytest.fixture
async def stores(url: str | None) -> AsyncIterator[Stores]:
    if url is None:
        yield _memory()
        return
    name = f"test_{new_uuid7().replace('-', '')}"
    await _administer(url, f"CREATE DATABASE {name} TEMPLATE blank")
    database = Database(_named(url, name), min_size=1, max_size=3)
    await database.open()
    journals: list[Journal] = []
    yield _postgres(database, journals)
    for journal in journals:
        await journal.close()
    await database.close()


@pytest.fixture
async def definition(stores: Stores) -> DefinitionRecord:
    record: DefinitionRecord = await stores.save(JobDefinition(job_type="etl", source="job_type: etl"))
    return record


def _postgres(database: Database, journals: list[Journal]) -> Stores:
    definitions = DefinitionStore(database)

    def journal(incarnation: str) -> Journal:
        journals.append(Journal(database, incarnation))
        return journals[-1]

    async def save(definition: JobDefinition) -> DefinitionRecord:
        return (await definitions.save(definition))[0]

    return Stores(
        leases=LeaseStore(database),
        shards=ShardStore(database),
        commands=CommandStore(database),
        claims=ClaimStore(database),
        jobs=JobStore(database),
        definitions=definitions,
        journal=journal,
        save=save,
    )


def _memory() -> Stores:
    database = MemoryDatabase(SHARDS, lambda: datetime.now(UTC))

    async def save(definition: JobDefinition) -> DefinitionRecord:
        number = len(database.job_types) + 1
        record = DefinitionRecord(
            id=new_uuid7(),
            job_type_id=number,
            job_type=definition.job_type,
            version=1,
            source=definition.source,
            created_at=datetime.now(UTC),
        )
        database.add_definition(record, definition.max_concurrency)
        return record

    return Stores(
        leases=MemoryLeaseStore(database, at_once),
        shards=MemoryShardStore(database, at_once),
        commands=MemoryCommandStore(database, at_once),
        claims=MemoryClaimStore(database, at_once),
        jobs=MemoryJobStore(database, at_once),
        definitions=MemoryDefinitionStore(database, at_once),
        journal=lambda incarnation: MemoryJournal(database, at_once, incarnation),
        save=save,
    )


async def _administer(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _named(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
