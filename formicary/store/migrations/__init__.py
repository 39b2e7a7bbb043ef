"""The schema's versions: ``schema.sql`` and ``functions.sql`` for a fresh database, numbered files for an older one.

A change edits one of those *and* adds a file here; a test compares both ways.
"""

import importlib.resources
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import structlog

from formicary.ids import SHARD_COUNT
from formicary.store.database import Database
from formicary.store.errors import SchemaError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

log = structlog.get_logger(__name__)

#: Key of the advisory lock that lets one queen at a time look at and change the schema.
LOCK_KEY = 170_600


def schema_sql() -> str:
    """Returns the newest schema, tables and functions.

    ``schema.sql`` lies in the package where that is installed, at the root of the repository otherwise.
    """
    package = importlib.resources.files("formicary.store")
    installed = package.joinpath("schema.sql")
    tables = installed if installed.is_file() else Path(__file__).parents[3] / "schema.sql"
    return "\n".join(part.read_text(encoding="utf-8") for part in (tables, package.joinpath("functions.sql")))


def migration_files() -> dict[int, str]:
    """Returns the text of every migration by its number, in order from 1."""
    folder = importlib.resources.files(__name__)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {int(name.partition("_")[0]): folder.joinpath(name).read_text(encoding="utf-8") for name in names}


async def migrate(database: Database, shard_count: int = SHARD_COUNT) -> int:
    """Creates the schema or brings it up to date, in one transaction; returns its version.

    Queens that start together take turns. ``shard_count`` counts at creation only.

    Raises:
        SchemaError: the database is newer than this program, or holds tables of something else.
        UnavailableError: the database cannot be reached; nothing was changed.
    """
    async with database.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
        version = await _version(connection)
        newest = max(migration_files())
        if version is None:
            await _create(connection, newest, shard_count)
        elif version > newest:
            raise SchemaError(
                f"the database has schema version {version}, this program knows {newest}: upgrade this program"
            )
        else:
            await _upgrade(connection, version)
    return newest


async def versions(database: Database) -> tuple[int | None, int]:
    """Returns the schema's version in the database, None where there is no schema yet, and the newest; changes nothing.

    Raises:
        UnavailableError: the database cannot be reached.
    """
    async with database.connection() as connection:
        return await _version(connection), max(migration_files())


async def _version(connection: "PoolConnectionProxy[asyncpg.Record]") -> int | None:
    if await connection.fetchval("SELECT to_regclass('colony')") is None:
        return None
    version: int | None = await connection.fetchval("SELECT schema_version FROM colony")
    return version


async def _create(connection: "PoolConnectionProxy[asyncpg.Record]", newest: int, shard_count: int) -> None:
    try:
        await connection.execute(schema_sql())
    except asyncpg.DuplicateTableError as error:
        raise SchemaError(f"this database holds tables of another program ({error}): use an empty one") from error
    await connection.execute("INSERT INTO colony (schema_version, shard_count) VALUES ($1, $2)", newest, shard_count)
    await connection.execute(
        "INSERT INTO leases (name, shard) SELECT 'leader', NULL UNION ALL "
        "SELECT 'shard-' || n, n FROM generate_series(0, $1::integer - 1) AS n",
        shard_count,
    )
    log.info("schema_created", version=newest, shard_count=shard_count)


async def _upgrade(connection: "PoolConnectionProxy[asyncpg.Record]", version: int) -> None:
    for number, sql in migration_files().items():
        if number <= version:
            continue
        await connection.execute(sql)
        await connection.execute("UPDATE colony SET schema_version = $1", number)
        log.info("schema_upgraded", version=number)
