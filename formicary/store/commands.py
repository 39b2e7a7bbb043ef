"""Commands from people, on their way to the owner of the job."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from formicary.ids import JobId
from formicary.store.database import Database
from formicary.store.rows import CommandRow


class Issued(NamedTuple):
    """The job that a key's first command was for, and whether that is the one just issued."""

    job_id: JobId
    is_new: bool


class CommandOutcome(NamedTuple):
    """Whether the owner has dealt with a command; ``refusal`` is None where it was applied."""

    is_done: bool
    refusal: str | None


#: Takes a key and inserts a command in one statement; nothing where the key was taken.
_ISSUE_ONCE = """
WITH fresh AS (
    INSERT INTO idempotency_keys (key, body_sha256, job_id) VALUES ($6, '', $1::uuid) ON CONFLICT DO NOTHING
    RETURNING job_id)
INSERT INTO job_commands (job_id, shard, kind, body, user_name) SELECT job_id, $2, $3, $4, $5 FROM fresh
RETURNING job_id::text"""


#: Waits for an expiry or a deletion that has locked the job; those that come later see the mark.
_HOLD = """
UPDATE jobs j SET held_by = u.command_id FROM unnest($1::uuid[], $2::bigint[]) AS u (job_id, command_id)
WHERE j.id = u.job_id AND j.state IN ('COMPLETED', 'FAILED', 'CANCELLED')"""


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

    async def issue_once(self, job_id: JobId, shard: int, kind: str, body: str, user: str | None, key: str) -> Issued:
        """Stores a command unless ``key`` issued one before; returns the job of the key's first command.

        The keys of submissions are others: one may be used for a submission and for a command.
        """
        known = command_key(key)
        row = await self._database.fetch_one(_ISSUE_ONCE, job_id, shard, kind, body, user, known)
        if row is not None:
            return Issued(job_id, is_new=True)
        return Issued(await self.first_of(key) or job_id, is_new=False)

    async def first_of(self, key: str) -> JobId | None:
        """Returns the job that a command with this key was issued for."""
        row = await self._database.fetch_one(
            "SELECT job_id::text FROM idempotency_keys WHERE group_id = 'default' AND key = $1", command_key(key)
        )
        return None if row is None else JobId(row["job_id"])

    async def open(self, shards: Sequence[int]) -> list[CommandRow]:
        """Returns the commands of these shards that nobody has dealt with, in the order of their issue."""
        rows = await self._database.fetch(
            "SELECT id, job_id::text, shard, kind, body FROM job_commands "
            "WHERE done_at IS NULL AND shard = ANY ($1::integer[]) ORDER BY id",
            list(shards),
        )
        return [CommandRow(*row.values()) for row in rows]

    async def hold(self, restarts: Mapping[JobId, int]) -> None:
        """Keeps ended jobs whole, job -> command that restarts it, until these commands are done.

        To be called before the jobs are read. What was expired or deleted before is seen then; afterwards nothing is
        until the journal says what became of the command, in the commit of its effect.
        """
        await self._database.fetch(_HOLD, list(restarts), list(restarts.values()))

    async def outcome(self, command_id: int) -> CommandOutcome:
        """Returns what became of a command; an unknown one counts as not done."""
        row = await self._database.fetch_one(
            "SELECT done_at IS NOT NULL AS is_done, refusal FROM job_commands WHERE id = $1", command_id
        )
        return CommandOutcome(False, None) if row is None else CommandOutcome(row["is_done"], row["refusal"])


def command_key(key: str) -> str:
    """Returns the name under which a command's key is kept: no submission can have it, theirs are printable."""
    return f"command\x1f{key}"
