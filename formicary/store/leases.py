"""Ownership: who leads, and who owns which shard, until when, in which epoch.

All statements lock lease rows in one order, the leader first and then by shard, as the journal does.
Times are the database's: no two machines' clocks are compared.
"""

from collections.abc import Collection, Mapping

from formicary.ids import QueenId
from formicary.store.database import Database
from formicary.store.rows import LeaseRow

LEADER = "leader"

_COLUMNS = (
    "l.name, l.shard, l.owner, l.owner_incarnation, l.epoch, l.expires_at > clock_timestamp() AS is_live, "
    "l.results_position, l.launch_position"
)

_TAKE = f"""
WITH free AS MATERIALIZED (
    SELECT name FROM leases
    WHERE name = ANY ($1) AND (
        NOT $5 OR owner IS NULL OR expires_at <= clock_timestamp() OR (owner = $2 AND owner_incarnation <> $3))
    ORDER BY shard NULLS FIRST LIMIT $6 FOR NO KEY UPDATE)
UPDATE leases l SET owner = $2, owner_incarnation = $3, epoch = l.epoch + 1,
    expires_at = clock_timestamp() + make_interval(secs => $4)
FROM free WHERE l.name = free.name RETURNING {_COLUMNS}"""

_OURS = """
WITH ours AS MATERIALIZED (
    SELECT l.name FROM leases l JOIN unnest($1::text[], $2::bigint[]) AS u (name, epoch) USING (name)
    WHERE l.epoch = u.epoch AND l.owner_incarnation = $3
    ORDER BY l.shard NULLS FIRST FOR NO KEY UPDATE OF l)
UPDATE leases l SET """

_RENEW = f"""{_OURS} expires_at = clock_timestamp() + make_interval(secs => $4)
FROM ours WHERE l.name = ours.name RETURNING l.name"""

_RELEASE = f"""{_OURS} owner = NULL, owner_incarnation = NULL, expires_at = '-infinity'
FROM ours WHERE l.name = ours.name RETURNING l.name"""

_RAISE = f"""{_OURS} epoch = l.epoch + 1
FROM ours WHERE l.name = ours.name RETURNING {_COLUMNS}"""


_PRESENT = """
WITH present AS (
    INSERT INTO queens (id, incarnation, expires_at)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, expires_at = excluded.expires_at)
SELECT id FROM queens WHERE expires_at > clock_timestamp() AND id <> $1 UNION ALL SELECT $1 ORDER BY 1"""

#: Rows of queens that have not been seen for so long are deleted, in seconds.
FORGET_QUEEN_S = 3600.0


def shard_lease(shard: int) -> str:
    """Returns the name of a shard's lease."""
    return f"shard-{shard}"


class LeaseStore:
    """The rows of ``leases``. Each method is one statement and one commit.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, shard_count: int) -> None:
        """Adds the leases of a colony with ``shard_count`` shards where they are missing."""
        await self._database.fetch(
            "INSERT INTO leases (name, shard) SELECT 'leader', NULL::integer UNION ALL "
            "SELECT 'shard-' || n, n FROM generate_series(0, $1::integer - 1) AS n ON CONFLICT DO NOTHING",
            shard_count,
        )

    async def shard_count(self) -> int:
        """Returns the number of shards, fixed when the database was created."""
        row = await self._database.fetch_one("SELECT shard_count FROM colony")
        assert row is not None
        return int(row["shard_count"])

    async def all(self) -> list[LeaseRow]:
        """Returns every lease, the leader first, then by shard."""
        rows = await self._database.fetch(f"SELECT {_COLUMNS} FROM leases l ORDER BY l.shard NULLS FIRST")
        return [LeaseRow(*row.values()) for row in rows]

    async def take(
        self,
        names: Collection[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        *,
        only_lapsed: bool = True,
        limit: int | None = None,
    ) -> list[LeaseRow]:
        """Takes leases over and raises their epochs, which fences the former owner for good.

        Waits for a journal statement of the former owner that is under way. Lapsed means: free, past its time, or held
        by another incarnation of this same owner. ``limit`` is the largest number to take; None: all.

        Returns:
            The leases taken, with their new epochs and the positions that were committed with them.
        """
        rows = await self._database.fetch(_TAKE, list(names), owner, incarnation, float(lease_s), only_lapsed, limit)
        return sorted((LeaseRow(*row.values()) for row in rows), key=_order)

    async def present(self, queen: QueenId, incarnation: str, lease_s: float) -> list[QueenId]:
        """Says that a queen lives, for as long as a lease; returns those that do, sorted."""
        return [QueenId(row["id"]) for row in await self._database.fetch(_PRESENT, queen, incarnation, float(lease_s))]

    async def leave(self, queen: QueenId, incarnation: str) -> None:
        """Takes back that a queen lives; forgets those that have been silent for long."""
        await self._database.fetch(
            "DELETE FROM queens WHERE (id = $1 AND incarnation = $2) "
            "OR expires_at < clock_timestamp() - make_interval(secs => $3)",
            queen,
            incarnation,
            FORGET_QUEEN_S,
        )

    async def renew(self, epochs: Mapping[str, int], incarnation: str, lease_s: float) -> set[str]:
        """Extends leases; returns the names of those that are still ours: also lapsed ones that nobody took."""
        return await self._change(_RENEW, epochs, incarnation, float(lease_s))

    async def release(self, epochs: Mapping[str, int], incarnation: str) -> set[str]:
        """Frees leases, so that another queen takes them at once; returns those that were still ours."""
        return await self._change(_RELEASE, epochs, incarnation)

    async def raise_epoch(self, epochs: Mapping[str, int], incarnation: str) -> list[LeaseRow]:
        """Opens a new epoch of leases that are still ours, before their memory is loaded anew; returns them."""
        rows = await self._database.fetch(_RAISE, list(epochs), list(epochs.values()), incarnation)
        return sorted((LeaseRow(*row.values()) for row in rows), key=_order)

    async def _change(self, sql: str, epochs: Mapping[str, int], *values: object) -> set[str]:
        rows = await self._database.fetch(sql, list(epochs), list(epochs.values()), *values)
        return {row["name"] for row in rows}


def _order(lease: LeaseRow) -> int:
    return -1 if lease.shard is None else lease.shard
