"""Job definitions: every version, and the newest of each job type."""

import hashlib
from collections.abc import Sequence

from formicary.ids import new_uuid7
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.database import Database, Record

_SELECT = (
    "SELECT d.id::text, t.id AS job_type_id, d.job_type, d.version, d.source, d.created_at "
    "FROM definitions d JOIN job_types t ON t.group_id = d.group_id AND t.job_type = d.job_type WHERE "
)
#: First key of the advisory locks that make savers of one job type take turns.
_SAVE_LOCK = 170_602

_INSERT = """
INSERT INTO definitions (id, job_type, version, source, sha256)
SELECT $1::uuid, $2, coalesce(max(version), 0) + 1, $3, $4 FROM definitions
WHERE group_id = 'default' AND job_type = $2 RETURNING version"""

_POINT = """
INSERT INTO job_types (job_type, definition_id, version, description, max_concurrency)
VALUES ($1, $2::uuid, $3, $4, $5)
ON CONFLICT (group_id, job_type) DO UPDATE SET definition_id = excluded.definition_id, version = excluded.version,
    description = excluded.description, max_concurrency = excluded.max_concurrency"""


class DefinitionStore:
    """The tables ``definitions`` and ``job_types``.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save(self, definition: JobDefinition) -> tuple[DefinitionRecord, bool]:
        """Stores a definition as its type's newest version, in one transaction.

        Returns:
            The newest version, and whether it is new: a source equal to the newest one changes nothing.

        Raises:
            DataRefusedError: the source holds a character that Postgres refuses.
        """
        digest = hashlib.sha256(definition.source.encode("utf-8", "surrogatepass")).hexdigest()
        job_type = definition.job_type
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _SAVE_LOCK, job_type)
            newest = await connection.fetchrow(f"{_NEWEST} AND d.sha256 = $2", job_type, digest)
            if newest is not None:
                return _record(newest), False
            identity = new_uuid7()
            version = await connection.fetchval(_INSERT, identity, job_type, definition.source, digest)
            await connection.execute(
                _POINT, job_type, identity, version, definition.description, definition.max_concurrency
            )
            saved = await connection.fetchrow(_NEWEST, job_type)
            assert saved is not None
            return _record(saved), True

    async def newest(self, job_type: str) -> DefinitionRecord | None:
        """Returns the newest version of a job type."""
        return await self._one(_NEWEST, job_type)

    async def version(self, job_type: str, version: int) -> DefinitionRecord | None:
        """Returns one version of a job type."""
        if not 0 < version < 2**31:
            return None
        return await self._one(
            f"{_SELECT} d.group_id = 'default' AND d.job_type = $1 AND d.version = $2", job_type, version
        )

    async def by_id(self, definition_id: str) -> DefinitionRecord | None:
        """Returns the version with this id."""
        return await self._one(f"{_SELECT} d.id = $1::uuid", definition_id)

    async def list(self, limit: int, cursor: str | None) -> tuple[list[DefinitionRecord], str | None]:
        """Returns a page of job types at their newest versions, by name, and the cursor of the next page.

        The cursor is the last name of the page: types added meanwhile move nothing.
        """
        rows = await self._database.fetch(
            f"{_SELECT} d.id = t.definition_id AND t.group_id = 'default' AND ($2::text IS NULL OR t.job_type > $2) "
            "ORDER BY t.job_type LIMIT $1",
            limit + 1,
            cursor,
        )
        items = [_record(row) for row in rows[:limit]]
        return items, items[-1].job_type if len(rows) > limit else None

    async def versions(self, job_type: str) -> Sequence[DefinitionRecord]:
        """Returns every version of a job type, newest first."""
        rows = await self._database.fetch(
            f"{_SELECT} d.group_id = 'default' AND d.job_type = $1 ORDER BY d.version DESC", job_type
        )
        return [_record(row) for row in rows]

    async def _one(self, sql: str, *values: object) -> DefinitionRecord | None:
        row = await self._database.fetch_one(sql, *values)
        return None if row is None else _record(row)


_NEWEST = f"{_SELECT} d.id = t.definition_id AND t.group_id = 'default' AND t.job_type = $1"


def _record(row: Record) -> DefinitionRecord:
    return DefinitionRecord(**dict(row))
