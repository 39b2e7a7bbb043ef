"""Which colony a database is."""

from formicary.errors import ConflictError, InvalidInputError
from formicary.store.database import Database
from formicary.store.migrations import versions

_RENEW = """
WITH former AS (SELECT id::text FROM colony)
UPDATE colony SET id = gen_random_uuid() FROM former
WHERE NOT EXISTS (SELECT FROM queens WHERE expires_at > clock_timestamp())
RETURNING former.id AS former, colony.id::text"""


async def renew_colony_id(database: Database) -> tuple[str, str]:
    """Gives a colony another id, for a copy of a database beside which the original lives on.

    Returns:
        The former id and the new one.

    Raises:
        InvalidInputError: the database holds no colony of this version.
        ConflictError: queens of it are running.
        UnavailableError: the database cannot be reached.
    """
    present, newest = await versions(database)
    if present != newest:
        found = "no colony" if present is None else f"schema version {present}"
        raise InvalidInputError(
            f"the database has {found}, this program knows version {newest}: start a queen on it first"
        )
    row = await database.fetch_one(_RENEW)
    if row is None:
        raise ConflictError("queens are running on this database, or were a moment ago: stop them first")
    return row["former"], row["id"]
