"""Contents under their digest, in any artifact store: what is equal is stored once.

Layout, below ``blobs/``; a *shelf* is one folder, the contents with one sha256::

    <aa>/<sha256>/<holder>.<random>         the content, as this attempt stored it: a *copy*
    <aa>/<sha256>/<holder>.claim            this attempt relies on a copy that was there
    <aa>/<sha256>/<holder>.<random>.sealed  nobody may begin to rely on this copy any more

A *holder* is an attempt: ``<job id>.<task number>.<attempt>``. Ants know no database, and between the storing of an
artifact and the commit that refers to it anything may happen. Rules that keep a content while anybody needs it:

- An attempt that finds a copy puts its claim first and looks for the copy's seal afterwards. Whoever deletes
  (``sweeping.py``) puts the seal first and looks for claims afterwards. So at least one sees the other.
- A copy's name is never used twice and its seal never taken back: a delete that comes late hits what is dead.
- A copy or a claim counts as long as its attempt may still report, which the database says, as it says what is
  referred to; no clock and no waiting time is part of the argument.
- Readers take any copy: all have the same bytes.
"""

import contextlib
import hashlib
import re
import secrets
import tempfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from formicary.artifacts.base import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ArtifactStore,
    SignedPut,
    Stored,
)
from formicary.artifacts.files import in_thread, open_source
from formicary.model.holders import Holder

PREFIX: Final = "blobs/"
_CLAIM: Final = ".claim"
_SEAL: Final = ".sealed"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"(?P<holder>[^./]+\.\d+\.\d+)\.(?:claim|[0-9a-f]+(?:\.sealed)?)")
#: How often a reader looks again for a copy when the one that it found is deleted under it.
_LOOKS: Final = 5


class Shelf(NamedTuple):
    """What lies under one digest: names of copies and of seals, and every attempt that is named."""

    sha256: str
    copies: tuple[str, ...]
    seals: frozenset[str]
    claims: tuple[str, ...]

    @property
    def open_copies(self) -> tuple[str, ...]:
        """Returns the copies that may be relied upon."""
        return tuple(copy for copy in self.copies if copy not in self.seals)

    @property
    def holders(self) -> frozenset[Holder]:
        """Returns the attempts that stored a copy or put a claim."""
        names = [*self.copies, *self.claims]
        return frozenset(Holder.parse(match["holder"]) for name in names if (match := _NAME.fullmatch(name)))

    def key(self, name: str) -> str:
        """Returns the key of a copy or claim."""
        return f"{folder_of(self.sha256)}{name}"

    def seal_key(self, copy: str) -> str:
        """Returns the key of a copy's seal."""
        return self.key(copy + _SEAL)


def folder_of(sha256: str) -> str:
    """Returns what the keys of one shelf begin with.

    Raises:
        ArtifactMissingError: nothing can have this digest.
    """
    if not _SHA256.fullmatch(sha256):
        raise ArtifactMissingError(f"{sha256[:80]!r} is no sha256, so nothing is stored under it")
    return f"{PREFIX}{sha256[:2]}/{sha256}/"


def shelf_of(sha256: str, names: Iterable[str]) -> Shelf:
    """Returns the shelf with these names; what is none of a shelf's names is left alone."""
    known = [name for name in names if _NAME.fullmatch(name)]
    return Shelf(
        sha256,
        tuple(name for name in known if not name.endswith((_CLAIM, _SEAL))),
        frozenset(name.removesuffix(_SEAL) for name in known if name.endswith(_SEAL)),
        tuple(name for name in known if name.endswith(_CLAIM)),
    )


class Offer(NamedTuple):
    """A content that somebody else is to store. ``put``: by which request; None: it is there, and claimed."""

    key: str
    content: Stored
    put: SignedPut


class Blobs:
    """Contents by digest over an artifact store."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    async def add(self, source: Path, holder: Holder) -> Stored:
        """Stores a file for an attempt, or claims the copy that is there; it stays while the attempt may report.

        Raises:
            ArtifactStoreUnavailableError: it could not be stored.
            ArtifactCorruptError: the file changed meanwhile.
        """
        stored = await in_thread("read", lambda: digest_of(source))
        if await self.claim(stored.sha256, holder):
            return stored
        key = new_key(stored.sha256, holder)
        put = await self.store.put(key, source)
        if put != stored:
            await self.store.delete(key)
            raise ArtifactCorruptError(f"{source} changed while it was stored")
        return stored

    async def claim(self, sha256: str, holder: Holder) -> bool:
        """Says whether the content is there and stays while the attempt may report; if not, the attempt stores it."""
        if not (await self.shelf(sha256)).open_copies:
            return False
        await self.mark(f"{folder_of(sha256)}{holder}{_CLAIM}")
        return bool((await self.shelf(sha256)).open_copies)

    async def offer(self, content: Stored, holder: Holder, expires_s: float) -> Offer | None:
        """Returns how somebody else can store a content for an attempt; None where the store has no URLs.

        It is stored also if it is there: who knows a digest only would else be given what others stored. Of equal
        copies sweeping leaves one.

        Raises:
            ArtifactMissingError: nothing can have this digest.
        """
        key = new_key(content.sha256, holder)
        put = await self.store.presign_put(key, expires_s, content.sha256)
        return None if put is None else Offer(key, content, put)

    async def accept(self, offer: Offer) -> None:
        """Proves that what was offered is there; it stays while the attempt may report.

        Raises:
            ArtifactMissingError: nobody stored it.
            ArtifactCorruptError: it is something else; what was stored for this offer is deleted.
        """
        try:
            await self.store.verify(offer.key, offer.content)
        except ArtifactCorruptError:
            await self.store.delete(offer.key)
            raise

    def get(self, sha256: str) -> AsyncGenerator[bytes, None]:
        """Yields the content in chunks of at most 1 MiB; raises at the end where its digest differs.

        Raises:
            ArtifactMissingError: nothing has this digest.
            ArtifactCorruptError: the bytes are not what was stored.
        """
        return self._get(sha256)

    async def _get(self, sha256: str) -> AsyncGenerator[bytes, None]:
        for _ in range(_LOOKS):
            async with contextlib.aclosing(self.store.get(await self._copy(sha256), sha256)) as chunks:
                try:
                    first = await anext(chunks, None)
                except ArtifactMissingError:
                    continue
                if first is not None:
                    yield first
                async for chunk in chunks:
                    yield chunk
                return
        raise _missing(sha256)

    async def fetch(self, sha256: str, target: Path) -> None:
        """Writes the content to ``target``, which appears only when it is whole and its digest is right."""
        for _ in range(_LOOKS):
            try:
                return await self.store.fetch(await self._copy(sha256), target, sha256)
            except ArtifactMissingError:
                if not (await self.shelf(sha256)).copies:
                    raise
        raise _missing(sha256)

    async def presign(self, sha256: str, expires_s: float) -> str | None:
        """Returns a URL from which anyone can get the content for a while, or None where there is no such thing."""
        return await self.store.presign(await self._copy(sha256), expires_s)

    async def shelf(self, sha256: str) -> Shelf:
        """Returns what lies under a digest now."""
        folder = folder_of(sha256)
        return shelf_of(sha256, [key.removeprefix(folder) async for key in self.store.list(folder)])

    async def mark(self, key: str) -> None:
        """Puts an empty file."""
        with tempfile.NamedTemporaryFile() as empty:
            await self.store.put(key, Path(empty.name))

    async def _copy(self, sha256: str) -> str:
        shelf = await self.shelf(sha256)
        if not shelf.copies:
            raise _missing(sha256)
        return shelf.key((shelf.open_copies or shelf.copies)[0])


def new_key(sha256: str, holder: Holder) -> str:
    """Returns a fresh key under which an attempt stores a content of this digest."""
    return f"{folder_of(sha256)}{holder}.{secrets.token_hex(4)}"


def digest_of(source: Path) -> Stored:
    """Returns digest and size of a regular file; a link is not followed. Blocks.

    Raises:
        ArtifactStoreUnavailableError: it is something else, such as a pipe, which may have no end.
    """
    with open_source(source) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Stored(sha256, file.tell())


def _missing(sha256: str) -> ArtifactMissingError:
    return ArtifactMissingError(f"nothing with sha256 {sha256} is stored")
