"""Nothing that somebody needs is deleted, and everything else is: the real store, real rows, chosen interleavings."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from formicary.artifacts.base import ArtifactMissingError
from formicary.artifacts.blobs import PREFIX, Blobs, Shelf
from formicary.artifacts.local import LocalStore
from formicary.artifacts.sweeping import Sweeper
from formicary.model.holders import Holder
from formicary.store.database import Database
from formicary.store.references import References
from tests.integration.store.turns import SteppedReferences, SteppedStore, Turns

NOW = datetime(2026, 2, 3, tzinfo=UTC)
CONTENTS = {hashlib.sha256(content).hexdigest(): content for content in (b"one", b"two")}
CHOICES = [list(CONTENTS), list(CONTENTS)[:1]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of syncs are not what is tested here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        yield Path(name)


class World:
    """A colony without its hot loop: attempts that store, commit, get lost; readers; sweepers."""

    def __init__(self, database: Database, folder: Path, turns: Turns) -> None:
        self.database = database
        self.folder = folder
        self.turns = turns
        self.store = SteppedStore(folder / "store", turns)
        self.blobs = Blobs(self.store)
        self.references = SteppedReferences(database, turns)
        self.sweeper: Sweeper = Sweeper(self.blobs, self.references)
        self.kept: list[str] = []
        (folder / "store").mkdir(parents=True)
        for sha256, content in CONTENTS.items():
            (folder / sha256).write_bytes(content)

    async def execute(self, sql: str, *values: object) -> None:
        async with self.turns.step(), self.database.connection() as connection:
            await connection.execute(sql, *values)

    async def attempt(self, definition: Any, ending: str) -> None:
        """Dispatched, stores one or two contents, and ends."""
        holder = Holder(str(UUID(int=self.turns.rng.getrandbits(128))), 0, 1)
        await self.execute(
            "WITH job AS (INSERT INTO jobs (id, job_type_id, definition_id, shard, state, due_at, created_at) "
            "VALUES ($1::uuid, $2, $3::uuid, 0, 'EXECUTING', now(), now())) INSERT INTO tasks (job_id, task_no, state, "
            "attempt, job_attempt, retries_used, polls_used, ants_lost, is_excepted, epoch) "
            "VALUES ($1::uuid, 0, 'EXECUTING', 1, 1, 0, 0, 0, false, 1)",
            holder.job_id,
            definition.job_type_id,
            definition.id,
        )
        contents: list[str] = self.turns.rng.choice(CHOICES)
        if ending == "fenced":  # given up by its owner while the ant stores on, whose word then counts for nothing
            await self.execute("UPDATE tasks SET state = 'FAILED' WHERE job_id = $1::uuid", holder.job_id)
        for sha256 in contents:
            await self.blobs.add(self.folder / sha256, holder)
        if ending == "lost":
            await self.execute("UPDATE tasks SET state = 'CANCELLED' WHERE job_id = $1::uuid", holder.job_id)
        elif ending == "kept":
            await self.keep(holder, contents)

    async def keep(self, holder: Holder, contents: list[str]) -> None:
        await self.execute(
            "WITH task AS (UPDATE tasks SET state = 'COMPLETED' WHERE job_id = $1::uuid), "
            "job AS (UPDATE jobs SET state = 'COMPLETED' WHERE id = $1::uuid) "
            "INSERT INTO artifacts SELECT $1::uuid, 0, 1, c, c, 3, now() FROM unnest($2::text[]) AS c",
            holder.job_id,
            contents,
        )
        for number, sha256 in enumerate(contents * 2):
            target = self.folder / f"{holder.job_id}-{number}"
            await self.blobs.fetch(sha256, target)
        await self.execute("DELETE FROM artifacts WHERE job_id = $1::uuid", holder.job_id)

    async def sweep(self) -> None:
        for _ in range(2):
            await self.sweeper.collect(CONTENTS)


Change = Callable[[World], None]


def nothing(world: World) -> None:
    """The program as it is."""


async def play(
    database: Database, definition: Any, folder: Path, seed: int, size: int, change: Change = nothing
) -> World:
    """Lets attempts store what an ended one left behind, while sweepers delete that."""
    turns = Turns(seed)
    world = World(database, folder, turns)
    change(world)
    await turns.play([world.sweeper.register("here", NOW)])
    await turns.play([world.attempt(definition, "lost")])
    endings = ["kept", *(turns.rng.choice(("kept", "kept", "lost", "fenced")) for _ in range(size - 1))]
    await turns.play([*(world.attempt(definition, ending) for ending in endings), *(world.sweep() for _ in endings)])
    return world


async def test_no_interleaving_deletes_what_is_needed_or_leaves_what_is_not(
    database: Database, definition: Any, folder: Path
) -> None:
    for seed in range(80):
        world = await play(database, definition, folder / str(seed), seed, 1 + seed % 3)
        await world.turns.play([world.sweep()])
        plain = LocalStore(folder / str(seed) / "store")
        sweeper = Sweeper(Blobs(plain), References(database))
        await sweeper.register("here", NOW)
        await sweeper.sweep()
        await sweeper.sweep()
        assert [key async for key in plain.list(PREFIX)] == [], f"seed {seed}"


class Unsealing(Sweeper):
    """Closes no copy before it asks the database."""

    async def _seal(self, shelf: Shelf, copies: object) -> Shelf:
        return Shelf(shelf.sha256, shelf.copies, frozenset(shelf.copies), shelf.claims)


class OldNames(Sweeper):
    """Asks the database about the names that it saw before the sealing."""

    async def _seal(self, shelf: Shelf, copies: Any) -> Shelf:
        await super()._seal(shelf, copies)
        return Shelf(shelf.sha256, shelf.copies, shelf.seals.union(shelf.copies), shelf.claims)


class Once(Blobs):
    """Does not look again after its claim."""

    async def claim(self, sha256: str, holder: Holder) -> bool:
        if not (await self.shelf(sha256)).open_copies:
            return False
        await self.mark(f"{PREFIX}{sha256[:2]}/{sha256}/{holder}.claim")
        return True


def unseal(world: World) -> None:
    world.sweeper = Unsealing(world.blobs, world.references)


def look_at_old_names(world: World) -> None:
    world.sweeper = OldNames(world.blobs, world.references)


def look_once(world: World) -> None:
    world.blobs = Once(world.store)


@pytest.mark.parametrize("change", [unseal, look_at_old_names, look_once])
async def test_without_any_one_of_the_rules_something_needed_is_deleted(
    database: Database, definition: Any, folder: Path, change: Change
) -> None:
    async def play_on() -> None:
        for seed in range(2000):
            await play(database, definition, folder / str(seed), seed, 1, change)

    with pytest.raises(ArtifactMissingError):
        await play_on()
