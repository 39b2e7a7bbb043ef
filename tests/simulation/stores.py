"""The store's classes over ``MemoryDatabase``: what the queen uses, behind a road that may lose an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from formicary.errors import UnavailableError
from formicary.ids import JobId, QueenId
from formicary.model.definition import DefinitionRecord
from formicary.store.claims import BlockedType, ClaimStore, Outlook
from formicary.store.commands import CommandOutcome, CommandStore
from formicary.store.definitions import DefinitionStore
from formicary.store.jobs import Inserted, JobStore, PendingChange
from formicary.store.journal import Journal, _refuse_content
from formicary.store.leases import LeaseStore
from formicary.store.memos import MemoStore, Result, Wanted
from formicary.store.rows import AttemptRow, CommandRow, HistoryRow, JournalBatch, LeaseRow, NewJob
from formicary.store.shards import LoadedJob, ShardStore
from tests.simulation.database import MemoryDatabase

T = TypeVar("T")


class Call(Protocol):
    """The way to the database: ``await call(statement)`` gives the answer, or raises ``UnavailableError``."""

    def __call__(self, statement: Callable[[], T], /) -> Awaitable[T]:
        """Has the statement executed there."""
        ...


async def at_once(statement: Callable[[], T]) -> T:
    """A way that never fails."""
    return statement()


class MemoryJournal(Journal):
    """The journal, its settling of unknown commits included."""

    def __init__(self, database: MemoryDatabase, call: Call, incarnation: str) -> None:
        self._memory = database
        self._call = call
        self._incarnation = incarnation
        self._number = 0
        self._turn = asyncio.Lock()

    async def commit(self, batch: JournalBatch) -> None:
        """Does what the real one does."""
        if not batch.shards:
            _refuse_content(batch)
            return
        batch = msgspec.structs.replace(batch)
        async with self._turn:
            self._number += 1
            number = self._number
            try:
                await self._call(lambda: self._memory.journal_commit(self._incarnation, number, batch))
            except UnavailableError as error:
                await self._settle(batch.shards, error)

    def is_connected(self) -> bool:
        """Says yes: the road loses answers, not connections."""
        return True

    async def close(self) -> None:
        """Needs nothing."""

    async def _settled(self, shards: list[int], epochs: list[int], number: int) -> list[Any]:
        while True:
            try:
                return list(await self._call(lambda: self._memory.settle(shards, epochs, self._incarnation, number)))
            except UnavailableError:
                await asyncio.sleep(0.05)


class MemoryLeaseStore(LeaseStore):
    """The table ``leases``."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def shard_count(self) -> int:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.shard_count)

    async def all(self) -> list[LeaseRow]:
        """Does what the real one does."""
        return await self._call(self._memory.all_leases)

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
        """Does what the real one does."""
        wanted = list(names)
        return await self._call(lambda: self._memory.take(wanted, owner, incarnation, lease_s, only_lapsed, limit))

    async def present(self, queen: QueenId, incarnation: str, lease_s: float) -> list[QueenId]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.present(queen, incarnation, lease_s))

    async def leave(self, queen: QueenId, incarnation: str) -> None:
        """Does what the real one does."""
        await self._call(lambda: self._memory.leave(queen, incarnation))

    async def renew(self, epochs: Mapping[str, int], incarnation: str, lease_s: float) -> set[str]:
        """Does what the real one does."""
        asked = dict(epochs)
        return await self._call(lambda: self._memory.renew(asked, incarnation, lease_s))

    async def release(self, epochs: Mapping[str, int], incarnation: str) -> set[str]:
        """Does what the real one does."""
        asked = dict(epochs)
        return await self._call(lambda: self._memory.release(asked, incarnation))

    async def raise_epoch(self, epochs: Mapping[str, int], incarnation: str) -> list[LeaseRow]:
        """Does what the real one does."""
        asked = dict(epochs)
        return await self._call(lambda: self._memory.raise_epoch(asked, incarnation))


class MemoryShardStore(ShardStore):
    """What owners load."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def load(self, shard: int) -> list[LoadedJob]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.load(shard))

    async def load_jobs(self, job_ids: Collection[JobId]) -> list[LoadedJob]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.load_jobs(job_ids))

    async def ready_jobs(self, shards: Collection[int]) -> list[LoadedJob]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.ready_jobs(shards))


class MemoryCommandStore(CommandStore):
    """The table ``job_commands``."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def issue(self, job_id: JobId, shard: int, kind: str, body: str, user: str | None) -> int:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.issue(job_id, shard, kind, body))

    async def open(self, shards: Sequence[int]) -> list[CommandRow]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.open_commands(shards))

    async def hold(self, restarts: Mapping[JobId, int]) -> None:
        """Does nothing: nothing expires here."""

    async def outcome(self, command_id: int) -> CommandOutcome:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.outcome(command_id))


class MemoryDefinitionStore(DefinitionStore):
    """The table ``definitions``."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def by_id(self, definition_id: str) -> DefinitionRecord | None:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.definitions.get(definition_id))


class MemoryMemoStore(MemoStore):
    """Results of earlier runs."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def find(self, wanted: Sequence[Wanted]) -> list[Result | None]:
        """Does what the real one does."""
        return await self._call(lambda: [self._memory.result(memo, since) for memo, since in wanted])


class MemoryClaimStore(ClaimStore):
    """Pending jobs."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def peek(self, limit: int, exclude: Collection[JobId]) -> list[LoadedJob]:
        """Does what the real one does."""
        left_out = set(exclude)
        return await self._call(lambda: self._memory.peek(limit, left_out))

    async def claim_ready(self, job_ids: Collection[JobId], leader_epoch: int) -> list[JobId]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.claim_ready(job_ids, leader_epoch))

    async def outlook(self) -> Outlook:
        """Does what the real one does."""
        return await self._call(self._memory.outlook)

    async def blocked(self) -> list[BlockedType]:
        """Does what the real one does."""
        return await self._call(self._memory.blocked)


class MemoryJobStore(JobStore):
    """The table ``jobs`` and what hangs on it."""

    def __init__(self, database: MemoryDatabase, call: Call) -> None:
        self._memory = database
        self._call = call

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.insert(jobs))

    async def attempts(self, job_id: JobId) -> list[AttemptRow]:
        """Does what the real one does."""
        return await self._call(lambda: sorted(row for row in self._memory.attempts.values() if row.job_id == job_id))

    async def history(self, job_id: JobId) -> list[HistoryRow]:
        """Does what the real one does."""
        return await self._call(
            lambda: [row for row in self._memory.history if row.job_id == job_id and row.task_type is None]
        )

    async def change_pending(self, job_id: JobId, kind: str, note: str) -> PendingChange:
        """Does what the real one does."""
        return await self._call(lambda: self._memory.change_pending(job_id, kind, note))

    async def set_waiting(self, reasons: Mapping[JobId, str | None]) -> None:
        """Does what the real one does."""
        await self._call(lambda: self._memory.set_waiting(reasons))
