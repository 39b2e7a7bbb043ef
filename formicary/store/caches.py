"""When caches were used last, as the records of attempts say."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from formicary.store.database import Database

#: Jobs that were submitted earlier are not looked at: their caches count as used when they were stored.
WINDOW: Final = timedelta(days=90)

_COLUMNS = "job_id, cache::jsonb AS cache, finished_at"
_RECENT = "cache IS NOT NULL AND job_id >= $1::uuid"
_LAST_USES = f"""
SELECT j.group_id, t.job_type, coalesce(c.cache ->> 'restored_key', c.cache ->> 'key') AS key,
    max(c.finished_at) AS used_at
FROM (
    SELECT {_COLUMNS} FROM tasks WHERE {_RECENT} UNION ALL SELECT {_COLUMNS} FROM task_attempts WHERE {_RECENT}
) AS c JOIN jobs j ON j.id = c.job_id JOIN job_types t ON t.id = j.job_type_id
WHERE c.finished_at IS NOT NULL GROUP BY 1, 2, 3"""


class CacheName(NamedTuple):
    """A cache, whichever of its archives is meant."""

    group: str
    job_type: str
    key: str


class CacheUses:
    """What ``tasks`` and ``task_attempts`` say about caches.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_uses(self, now: datetime) -> dict[CacheName, datetime]:
        """Returns when each cache was restored or stored last, of jobs submitted within ``WINDOW`` before ``now``."""
        rows = await self._database.fetch(_LAST_USES, _first_id(now - WINDOW))
        return {CacheName(row["group_id"], row["job_type"], row["key"]): row["used_at"] for row in rows}


def _first_id(at: datetime) -> str:
    """Returns the least id of a job submitted then: ids begin with the time."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"
