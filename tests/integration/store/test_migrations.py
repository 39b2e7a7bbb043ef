"""Both ways to the newest schema, and what is refused."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from formicary.store import migrations
from formicary.store.database import Database
from formicary.store.errors import SchemaError
from formicary.store.leases import LeaseStore
from formicary.store.migrations import migrate, migration_files

CATALOGUE = """
SELECT 'column ' || table_name || '.' || column_name || ' ' || ordinal_position || ' ' || data_type || ' '
    || is_nullable || ' ' || coalesce(column_default, '') || ' ' || coalesce(identity_generation, '') AS line
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'table ' || relname || ' ' || coalesce(reloptions::text, '') || ' '
    || coalesce(obj_description(oid, 'pg_class'), '')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
UNION ALL SELECT 'type ' || attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod)
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'c'
ORDER BY 1"""


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    database = Database(empty_url, min_size=1, max_size=4)
    await database.open()
    yield database
    await database.close()


async def _migrated_from_the_first_version(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(migration_files()[1])
        await connection.execute("INSERT INTO colony (schema_version, shard_count) VALUES (1, 16)")
    await migrate(database)


async def test_a_fresh_database_equals_one_migrated_from_the_first_version(empty: Database, database: Database) -> None:
    await _migrated_from_the_first_version(empty)

    migrated = [row["line"] for row in await empty.fetch(CATALOGUE)]
    fresh = [row["line"] for row in await database.fetch(CATALOGUE)]

    assert migrated == fresh
    assert len(fresh) > 100


async def test_migrating_again_changes_nothing_and_keeps_the_number_of_shards(empty: Database) -> None:
    await migrate(empty, shard_count=4)
    await migrate(empty, shard_count=8)

    leases = LeaseStore(empty)
    assert await leases.shard_count() == 4
    assert [lease.name for lease in await leases.all()] == ["leader", "shard-0", "shard-1", "shard-2", "shard-3"]


async def test_queens_that_start_together_take_turns(empty: Database) -> None:
    versions = await asyncio.gather(*(migrate(empty) for _ in range(4)))

    assert len(set(versions)) == 1
    assert len(await empty.fetch("SELECT 1 FROM colony")) == 1


async def test_a_newer_migration_is_applied_once(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(empty)
    newer = migration_files() | {9999: "CREATE TABLE added (n integer)"}
    monkeypatch.setattr(migrations, "migration_files", lambda: newer)

    assert await migrate(empty) == 9999
    assert await migrate(empty) == 9999

    assert await empty.fetch("SELECT n FROM added") == []


async def test_a_migration_that_fails_leaves_the_former_version(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(empty)
    broken = migration_files() | {9999: "CREATE TABLE added (n integer); SELECT 1 / 0"}
    monkeypatch.setattr(migrations, "migration_files", lambda: broken)

    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty)

    row = await empty.fetch_one("SELECT to_regclass('added') AS added, schema_version FROM colony")
    assert row is not None
    assert (row["added"], row["schema_version"]) == (None, max(migration_files()))


async def test_a_database_newer_than_the_program_is_refused(empty: Database) -> None:
    await migrate(empty)
    await empty.fetch("UPDATE colony SET schema_version = 9999")

    with pytest.raises(SchemaError, match="upgrade this program"):
        await migrate(empty)


async def test_a_database_of_another_program_is_refused_and_left_alone(empty: Database) -> None:
    await empty.fetch("CREATE TABLE jobs (id integer)")

    with pytest.raises(SchemaError, match="another program"):
        await migrate(empty)

    assert [
        row["relname"]
        for row in await empty.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        )
    ] == ["jobs"]
