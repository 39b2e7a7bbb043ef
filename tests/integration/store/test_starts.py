"""A queen whose database or artifact store is lost in the middle of her start."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from formicary import settings, wiring
from formicary.clock import SystemClock
from formicary.patience import Patience
from tests.integration.store.road import Road


@pytest.fixture
async def road(url: str) -> AsyncIterator[Road]:
    road = Road(url)
    await road.open()
    yield road
    await road.close()


async def start(road: Road, home: Path) -> int:
    """Starts a queen, has her answer and leave; returns how many statements she began until she served."""
    environ = {"FORMICARY_HOME": str(home), "FORMICARY_DATABASE_URL": road.url}
    async with asyncio.timeout(60), wiring.queen(settings.load(environ), "q") as colony:
        statement_count = road.statement_count
        # Where the start no longer needed what was lost, the first question may meet the loss.
        ask = Patience(SystemClock()).wait_out("database_away", lambda: colony.manager.definitions(1, None))
        assert await ask == ([], None)
    return statement_count


async def test_a_start_waits_for_a_database_that_is_lost_at_any_of_its_statements(road: Road, tmp_path: Path) -> None:
    statement_count = await start(road, tmp_path)
    assert statement_count > 10

    for number in range(1, statement_count + 1):
        road.statement_count, road.falls_at, road.refuses = 0, number, 1
        await start(road, tmp_path)
        assert road.has_fallen, number
