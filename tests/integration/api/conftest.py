"""A front of a queen on a database of its own, for each test."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from formicary.store.database import Database
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.migrations import migrate
from formicary.testing.front import SHARDS, Api, QueenFront


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = asyncio.run(server.start())
    yield url
    asyncio.run(server.stop())


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def template(server_url: str) -> str:
    async def make() -> None:
        await _administer(server_url, "CREATE DATABASE api_blank")
        database = Database(_named(server_url, "api_blank"), min_size=1, max_size=1)
        await database.open()
        await migrate(database, SHARDS)
        await database.close()

    asyncio.run(make())
    return "api_blank"


@pytest.fixture
async def database(server_url: str, template: str) -> AsyncIterator[Database]:
    name = f"api_{next(_numbers)}"
    await _administer(server_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(_named(server_url, name), min_size=1, max_size=4)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def front(database: Database, tmp_path: Path) -> AsyncIterator[QueenFront]:
    front = QueenFront(database, tmp_path)
    await front.start()
    yield front
    await front.stop()


@pytest.fixture
async def api(front: QueenFront) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession(base_url=front.server.address) as session:
        yield Api(session)


def _named(url: str, name: str) -> str:
    head, _, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


async def _administer(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
