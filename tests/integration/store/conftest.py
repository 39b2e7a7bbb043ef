"""One embedded server for all tests here, a database of its own for each test."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from formicary.ids import QueenId, new_job_id, shard_of
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.leases import LeaseStore
from formicary.store.migrations import migrate
from formicary.store.rows import NewJob

if TYPE_CHECKING:
    from asyncpg.connection import LoggedQuery
    from asyncpg.pool import PoolConnectionProxy

SHARDS = 16
MakeJob = Callable[..., NewJob]


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = asyncio.run(server.start())
    yield url
    assert server.pid is not None
    os.kill(server.pid, signal.SIGQUIT)  # nobody needs these databases: no orderly end of a hundred of them
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    async def make() -> None:
        await _administer(server_url, "CREATE DATABASE blank")
        database = Database(_named(server_url, "blank"), min_size=1, max_size=1)
        await database.open()
        await migrate(database, SHARDS)
        await database.close()

    asyncio.run(make())
    return "blank"


_numbers = itertools.count(1)


@pytest.fixture
async def empty_url(server_url: str) -> str:
    """A database without any table."""
    name = f"empty_{next(_numbers)}"
    await _administer(server_url, f"CREATE DATABASE {name}")
    return _named(server_url, name)


@pytest.fixture
async def url(server_url: str, template: str) -> str:
    """A database with the newest schema."""
    name = f"test_{next(_numbers)}"
    await _administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    return _named(server_url, name)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, min_size=1, max_size=4)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def leases(database: Database) -> LeaseStore:
    """All leases taken by queen ``q`` in incarnation ``q@1``, epoch 1."""
    store = LeaseStore(database)
    names = [lease.name for lease in await store.all()]
    await store.take(names, QueenId("q"), "q@1", 60.0)
    return store


@pytest.fixture
async def definition(database: Database) -> DefinitionRecord:
    record, _ = await DefinitionStore(database).save(JobDefinition(job_type="etl", source="job_type: etl"))
    return record


@pytest.fixture
def make_job(definition: DefinitionRecord) -> MakeJob:
    """Makes a submission of ``definition``, due now; keywords replace fields."""

    def make(**changes: Any) -> NewJob:
        job_id = new_job_id()
        now = datetime.now(UTC)
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

    return make


class _CountingDatabase(Database):
    """Keeps the text of every statement that goes through it, but for the driver's questions about types."""

    def __init__(self, url: str, statements: list[str]) -> None:
        super().__init__(url, min_size=1, max_size=1)
        self._statements = statements

    @asynccontextmanager
    async def connection(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        async with super().connection() as connection:
            with connection.query_logger(self._note):
                yield connection

    def _note(self, query: "LoggedQuery") -> None:
        if "typeinfo" not in query.query and "'jit'" not in query.query:
            self._statements.append(query.query)


@pytest.fixture
def statements() -> list[str]:
    """The statements that ``counting`` has run."""
    return []


@pytest.fixture
async def counting(url: str, statements: list[str]) -> AsyncIterator[Database]:
    database = _CountingDatabase(url, statements)
    await database.open()
    yield database
    await database.close()


async def _administer(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _named(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?")
