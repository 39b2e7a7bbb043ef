"""Deletes the contents that nobody needs, and never one that somebody does.

The argument, on the rules of ``blobs.py``. A content may be deleted when, at one moment of the database,

1. no row refers to it, and
2. no attempt that stored or claimed a copy of it may still report (then its commit would write such a row).

Both are asked in one statement, so an attempt is seen either before its commit, by 2, or after it, by 1. The names of
attempts are read from the store *before* that moment and *after* every copy was sealed: an attempt that came later
found the seal, stored a copy of its own and does not rely on what is deleted here. All this stays true however long the
process sleeps between the steps, and whoever else sweeps meanwhile, since a seal is for ever: leadership saves work, it
is not what makes this safe.

What an attempt stored that was lost, fenced off or failed to store the rest, belongs to no row and goes the same way.
Of copies that two ants stored at the same moment one is kept: the others are sealed, and deleted once an open one is
seen beside them. Two sweepers cannot delete the last two against each other: each saw the other's copy unsealed after
its own was sealed, and one of the two looks was the later one.

A database knows its own colony's references only. So every colony leaves its name in the store before its first
dispatch, and nothing is deleted where there is another name. That is looked at after the sealing, hence the same
argument covers what the ants of a colony do that came later.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog

from formicary.artifacts.blobs import PREFIX, Blobs, Shelf, shelf_of
from formicary.artifacts.colonies import ROOT, key_of, put_mark
from formicary.artifacts.parallel import each
from formicary.model.holders import Holder, Uses

log = structlog.get_logger(__name__)

#: Shelves that are judged by one statement.
BATCH: Final = 500


class References(Protocol):
    """The database."""

    async def uses(self, contents: Sequence[str], holders: Sequence[Holder]) -> Uses:
        """Returns which of these count, all at one moment."""
        ...


class Swept(NamedTuple):
    """How many copies were looked at, and how many deleted."""

    seen_count: int = 0
    deleted_count: int = 0

    def plus(self, other: "Swept") -> "Swept":
        """Returns the sums."""
        return Swept(self.seen_count + other.seen_count, self.deleted_count + other.deleted_count)


class Sweeper:
    """Deletes contents; safe to run anywhere, at any time, several at once."""

    def __init__(self, blobs: Blobs, references: References) -> None:
        self._blobs = blobs
        self._references = references
        self._name = ""

    async def register(self, colony_id: str, now: datetime) -> None:
        """Notes in the store that this colony uses it; nothing is ever deleted before."""
        await put_mark(self._blobs.store, colony_id, now)
        self._name = key_of(colony_id)

    async def sweep(self) -> Swept:
        """Looks at everything stored; memory holds a 256th of the names at a time."""
        total = Swept()
        if not await self.is_alone():
            return total
        for number in range(256):
            batch: list[Shelf] = []
            async for shelf in self._shelves(f"{PREFIX}{number:02x}/"):
                batch.append(shelf)
                if len(batch) == BATCH:
                    total = total.plus(await self._judge(batch))
                    batch = []
            total = total.plus(await self._judge(batch))
        return total

    async def collect(self, contents: Iterable[str]) -> Swept:
        """Looks at these contents only: those whose references were just removed."""
        total = Swept()
        wanted = sorted(set(contents))
        if not wanted or not await self.is_alone():
            return total
        for first in range(0, len(wanted), BATCH):
            shelves = [await self._blobs.shelf(sha256) for sha256 in wanted[first : first + BATCH]]
            total = total.plus(await self._judge(shelves))
        return total

    async def is_alone(self) -> bool:
        """Says whether the store belongs to this colony only: of another one's references nothing is known here."""
        names = [name async for name in self._blobs.store.list(ROOT)]
        others = [name for name in names if name != self._name]
        if others:
            remedy = "formicary colony forget ID, for one that is gone"
            log.warning("artifacts_not_swept", reason="other colonies use the store", others=others[:5], remedy=remedy)
        return self._name in names and not others

    async def _shelves(self, prefix: str) -> AsyncIterator[Shelf]:
        sha256, names = "", list[str]()
        async for key in self._blobs.store.list(prefix):
            folder, _, name = key.removeprefix(PREFIX).rpartition("/")
            _, _, found = folder.partition("/")
            if found != sha256:
                if names:
                    yield shelf_of(sha256, names)
                sha256, names = found, []
            names.append(name)
        if names:
            yield shelf_of(sha256, names)

    async def _judge(self, shelves: Sequence[Shelf]) -> Swept:
        uses = await self._uses(shelves)
        # While an attempt may report that stored or claimed it, a shelf is left alone altogether.
        idle = [shelf for shelf in shelves if uses.reporting.isdisjoint(shelf.holders)]
        counter = _Counter()
        await self._delete([shelf for shelf in idle if not _is_needed(shelf, uses)], counter)
        await each([shelf for shelf in idle if _is_needed(shelf, uses)], lambda shelf: self._tidy(shelf, counter))
        return Swept(sum(len(shelf.copies) for shelf in shelves), counter.deleted_count)

    async def _delete(self, doomed: Sequence[Shelf], counter: "_Counter") -> None:
        """Seals, looks and asks again, then deletes."""
        sealed: list[Shelf] = []

        async def seal(shelf: Shelf) -> None:
            await self._delete_marks(shelf)
            if shelf.copies:
                sealed.append(await self._seal(shelf, shelf.open_copies))

        async def delete(shelf: Shelf) -> None:
            await self._delete_copies(shelf, counter)
            await self._delete_claims(shelf)

        await each(doomed, seal)
        if sealed and await self.is_alone():
            uses = await self._uses(sealed)
            await each([shelf for shelf in sealed if not _is_needed(shelf, uses)], delete)

    async def _tidy(self, shelf: Shelf, counter: "_Counter") -> None:
        """Deletes from a shelf that is needed all copies but one, and claims for which rows stand by now."""
        await self._delete_marks(shelf)
        await self._delete_claims(shelf)
        if len(shelf.copies) > 1:
            now = await self._seal(shelf, shelf.open_copies[1:])
            if now.open_copies:
                await self._delete_copies(now, counter)

    async def _seal(self, shelf: Shelf, copies: Iterable[str]) -> Shelf:
        """Closes copies to new attempts; returns the shelf as it is afterwards."""
        for copy in copies:
            await self._blobs.mark(shelf.seal_key(copy))
        return await self._blobs.shelf(shelf.sha256)

    async def _delete_copies(self, shelf: Shelf, counter: "_Counter") -> None:
        """Deletes the sealed copies. Their seals stay until the next sweep, for who reads names meanwhile."""
        for copy in shelf.copies:
            if copy in shelf.seals:
                await self._blobs.store.delete(shelf.key(copy))
                counter.deleted_count += 1

    async def _delete_claims(self, shelf: Shelf) -> None:
        """Deletes the claims that were seen; to be called where none of them counts any more."""
        for claim in shelf.claims:
            await self._blobs.store.delete(shelf.key(claim))

    async def _delete_marks(self, shelf: Shelf) -> None:
        """Deletes seals of copies that are gone, and where there is no copy at all the claims."""
        for copy in shelf.seals.difference(shelf.copies):
            await self._blobs.store.delete(shelf.seal_key(copy))
        if not shelf.copies:
            await self._delete_claims(shelf)

    async def _uses(self, shelves: Sequence[Shelf]) -> Uses:
        if not shelves:
            return Uses(frozenset(), frozenset())
        holders = {holder for shelf in shelves for holder in shelf.holders}
        return await self._references.uses([shelf.sha256 for shelf in shelves], sorted(holders))


def _is_needed(shelf: Shelf, uses: Uses) -> bool:
    return shelf.sha256 in uses.referenced or not uses.reporting.isdisjoint(shelf.holders)


class _Counter:
    def __init__(self) -> None:
        self.deleted_count = 0
