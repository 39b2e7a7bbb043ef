"""When caches were used last, as the records of attempts say."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from formicary.ids import least_id
from formicary.store.database import Database

#: Jobs that were submitted earlier are not looked at: their caches count as used when they were stored.
WINDOW: Final = timedelta(days=90)
#: Of the jobs that one statement looks at, from the first submission to the last.
_PART: Final = timedelta(days=1)

_COLUMNS = "job_id, cache::jsonb AS cache, finished_at"
_RECENT = "cache IS NOT NULL AND job_id >= $1::uuid AND job_id < $2::uuid"
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
        uses: dict[CacheName, datetime] = {}
        since = now - WINDOW
        while since <= now:
            for row in await self._database.fetch(_LAST_USES, least_id(since), least_id(since + _PART)):
                name = CacheName(row["group_id"], row["job_type"], row["key"])
                uses[name] = max(row["used_at"], uses.get(name, row["used_at"]))
            since += _PART
        return uses
