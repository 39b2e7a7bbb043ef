"""Commands from people, on their way to the owner of the job."""

from collections.abc import Sequence
from typing import NamedTuple

from formicary.ids import JobId
from formicary.store.database import Database
from formicary.store.rows import CommandRow


class CommandOutcome(NamedTuple):
    """Whether the owner has dealt with a command; ``refusal`` is None where it was applied."""

    is_done: bool
    refusal: str | None


class CommandStore:
    """The table ``job_commands``; the journal marks its rows done.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, job_id: JobId, shard: int, kind: str, body: str, user: str | None) -> int:
        """Stores a command, durably, and returns its number; ``body`` is a JSON text."""
        row = await self._database.fetch_one(
            "INSERT INTO job_commands (job_id, shard, kind, body, user_name) VALUES ($1::uuid, $2, $3, $4, $5) "
            "RETURNING id",
            job_id,
            shard,
            kind,
            body,
            user,
        )
        assert row is not None
        return int(row["id"])

    async def open(self, shards: Sequence[int]) -> list[CommandRow]:
        """Returns the commands of these shards that nobody has dealt with, in the order of their issue."""
        rows = await self._database.fetch(
            "SELECT id, job_id::text, shard, kind, body FROM job_commands "
            "WHERE done_at IS NULL AND shard = ANY ($1::integer[]) ORDER BY id",
            list(shards),
        )
        return [CommandRow(*row.values()) for row in rows]

    async def outcome(self, command_id: int) -> CommandOutcome:
        """Returns what became of a command; an unknown one counts as not done."""
        row = await self._database.fetch_one(
            "SELECT done_at IS NOT NULL AS is_done, refusal FROM job_commands WHERE id = $1", command_id
        )
        return CommandOutcome(False, None) if row is None else CommandOutcome(row["is_done"], row["refusal"])
