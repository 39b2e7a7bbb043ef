"""``formicary colony``: who shares a store, who is gone, and a copied database that becomes a colony of its own."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from formicary.artifacts.blobs import Blobs
from formicary.artifacts.colonies import key_of, marked, put_mark
from formicary.artifacts.local import LocalStore
from formicary.artifacts.sweeping import Sweeper
from formicary.home import HomeLock
from formicary.ids import QueenId
from formicary.store.database import Database
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.leases import LeaseStore
from formicary.store.migrations import migrate
from formicary.store.references import References

FORMICARY = Path(sys.executable).parent / "formicary"


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    await store.open()
    return store


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FORMICARY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FORMICARY_ARTIFACTS_URL", (tmp_path / "store").as_uri())


async def formicary(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(FORMICARY), "colony", *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)


async def test_a_colony_that_is_gone_is_forgotten_and_the_other_sweeps_again(
    store: LocalStore, database: Database, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    sweeper = Sweeper(Blobs(store), References(database))
    await sweeper.register("here", now)
    await put_mark(store, "gone", now - timedelta(days=3))
    assert not await sweeper.is_alone()

    listed = json.loads((await formicary("list", "-o", "json")).stdout)
    assert [each["colony_id"] for each in listed] == ["gone", "here"]
    assert "gone" in (await formicary("list")).stdout

    assert (await formicary("forget", "gone")).returncode == 0
    assert await sweeper.is_alone()


async def test_a_colony_that_seems_to_live_is_forgotten_by_force_only(store: LocalStore, tmp_path: Path) -> None:
    await put_mark(store, "living", datetime.now(UTC))
    (tmp_path / "empty").touch()
    await store.put(key_of("old"), tmp_path / "empty")
    for colony_id in ("living", "old"):
        refused = await formicary("forget", colony_id)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "--force" in refused.stderr
    assert (await formicary("forget", "unknown")).returncode == 2
    assert len(await marked(store)) == 2

    assert (await formicary("forget", "old", "--force")).returncode == 0
    assert [each.colony_id for each in await marked(store)] == ["living"]


async def test_a_copied_database_becomes_a_colony_of_its_own_unless_its_queens_run(
    database: Database, url: str
) -> None:
    references, leases = References(database), LeaseStore(database)
    former = await references.colony_id()
    await leases.present(QueenId("q"), "q@1", 60.0)
    refused = await formicary("new-id", "--database-url", url)
    assert (refused.returncode, await references.colony_id()) == (2, former)
    assert "stop them first" in refused.stderr

    await leases.leave(QueenId("q"), "q@1")
    done = await formicary("new-id", "--database-url", url)
    assert done.returncode == 0, done.stderr
    assert await references.colony_id() != former
    assert done.stdout == f"colony {former} is {await references.colony_id()} now\n"


async def test_a_database_without_a_colony_is_told_so(empty_url: str) -> None:
    refused = await formicary("new-id", "--database-url", empty_url)
    assert refused.returncode == 2
    assert "start a queen on it first" in refused.stderr


async def test_the_database_of_a_home_gets_a_new_id_while_nothing_runs_on_it(tmp_path: Path) -> None:
    home, server = tmp_path / "home", EmbeddedPostgres(tmp_path / "home" / "postgres")
    absent = await formicary("new-id", "--home", str(home))
    assert (absent.returncode, absent.stderr.startswith("formicary: there is no database under")) == (2, True)

    database = Database(await server.start(), min_size=1, max_size=1)
    try:
        await database.open()
        await migrate(database)
        former = await References(database).colony_id()
    finally:
        await database.close()
        await server.stop()
    with HomeLock(home, "up"):
        held = await formicary("new-id", "--home", str(home))
    assert held.returncode == 2
    assert "stop that first" in held.stderr

    done = await formicary("new-id", "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"colony {former} is ")
    assert done.stdout.endswith(f" now, under {home}\n")
