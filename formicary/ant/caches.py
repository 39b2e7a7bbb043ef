"""The cache of an attempt: restored before its start, stored after its success where its key is new.

A cache makes a task faster and decides nothing: whatever goes wrong with it is a line in the task's log and a word in
its record, and the task goes on as if there were none.
"""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from formicary.ant.errors import TransferError
from formicary.ant.folders import AttemptFolder
from formicary.ant.globs import compile_pattern, select_files
from formicary.ant.logs import AttemptLog
from formicary.artifacts import caches
from formicary.artifacts.archive import CHUNK_BYTES, Packed, pack, unpack
from formicary.artifacts.base import ArtifactError, ArtifactMissingError, ArtifactStore
from formicary.artifacts.caches import CacheEntry, CacheKeyError, CacheScope
from formicary.clock import Clock
from formicary.events.orders import Order
from formicary.model.definition import CachePolicy
from formicary.model.jobs import CacheRecord, CacheResult

T = TypeVar("T")

#: Of the digest of ``key_paths`` in a key, in hexadecimal characters.
_DIGEST_CHARS: Final = 32
_LONGEST_PROBLEM: Final = 500

_PROBLEMS = (ArtifactError, TransferError, CacheKeyError, OSError)


class Caches:
    """Makes ``CacheUse`` for attempts."""

    def __init__(self, store: ArtifactStore, clock: Clock, limit_bytes: int) -> None:
        self.store = store
        self.clock = clock
        self.limit_bytes = limit_bytes

    def use(self, order: Order, folder: AttemptFolder, log: AttemptLog) -> "CacheUse | None":
        """Returns what deals with the attempt's cache, None where it has none."""
        return None if order.cache is None else CacheUse(self, order, order.cache, folder, log)


class CacheUse:
    """One attempt and its cache. ``record`` says at any time what became of it so far."""

    def __init__(
        self, caches: Caches, order: Order, policy: CachePolicy, folder: AttemptFolder, log: AttemptLog
    ) -> None:
        self._caches = caches
        self._store = caches.store
        self._policy = policy
        self._folder = folder
        self._log = log
        self._limit_s = order.timeout_s
        self._scope = CacheScope(order.group, order.job_type)
        self._key = ""
        self._result = CacheResult.MISS
        self._restored: CacheEntry | None = None
        #: What could not be restored: it is no reason not to store another.
        self._unusable: CacheEntry | None = None
        self._stored_bytes: int | None = None
        self._problem: str | None = None
        self._is_given_up = False

    @property
    def record(self) -> CacheRecord:
        """Returns what to say of it in the attempt's record."""
        restored = self._restored
        return CacheRecord(
            key=self._key,
            result=self._result,
            restored_key=None if restored is None else restored.key,
            restored_bytes=None if restored is None else restored.size_bytes,
            stored_bytes=self._stored_bytes,
            problem=self._problem,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Returns what of the working directory ``store`` will look at, none where there is nothing to store."""
        is_over = self._is_given_up or not self._key or self._result is CacheResult.HIT
        return () if is_over else self._policy.paths

    async def restore(self) -> None:
        """Puts the cache into the working directory, beside what is there. Never fails but by cancellation."""
        await self._guarded("restored", self._restore())

    async def give_up(self, reason: str) -> None:
        """Stores nothing, for a reason that is told."""
        self._is_given_up = True
        await self._tell_problem(reason)

    async def store(self) -> None:
        """Stores the cache, unless it was restored under this very key. Never fails but by cancellation."""
        if self.paths:
            await self._guarded("stored", self._store_new())

    async def _guarded(self, verb: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await work
        except TimeoutError:
            await self._tell_problem(f"could not be {verb} within the task's timeout of {self._limit_s:g} s")
        except _PROBLEMS as exc:
            await self._tell_problem(f"could not be {verb}: {exc}")

    async def _tell_problem(self, text: str) -> None:
        self._problem = self._log.told(text)[:_LONGEST_PROBLEM]
        await self._log.note(f"cache {self._key!r} {self._problem}" if self._key else f"the cache {self._problem}")

    async def _restore(self) -> None:
        work = self._folder.path()
        self._key = await self._whole_key(work)
        entry = await self._find()
        if entry is None:
            await self._log.note(f"cache {self._key!r}: nothing is stored yet")
            return
        self._unusable = entry
        count = await self._fetch(entry, work)
        self._restored, self._unusable = entry, None
        self._result = CacheResult.HIT if entry.key == self._key else CacheResult.RESTORED
        origin = "restored" if entry.key == self._key else f"not stored yet, restored {entry.key!r}"
        await self._log.note(f"cache {self._key!r}: {origin}, {_entries(count)}, {size_text(entry.size_bytes)}")

    async def _whole_key(self, work: Path) -> str:
        """Returns the key with the digest of what ``key_paths`` select; says where a pattern selects nothing."""
        key = self._policy.key.strip()
        if not self._policy.key_paths:
            if not key:
                raise CacheKeyError("the key is empty")
            return key
        digest, unmatched = await in_thread(lambda _: _digest(work, self._policy.key_paths))
        for pattern in unmatched:
            await self._log.note(f"cache.key_paths: nothing matches {pattern!r}")
        return f"{key}-{digest}" if key else digest

    async def _find(self) -> CacheEntry | None:
        now = self._caches.clock.now()
        entry = await caches.find(self._store, self._scope, self._key, now)
        for beginning in self._policy.restore_keys:
            if entry is None and beginning.strip():
                entry = await caches.find_beginning(self._store, self._scope, beginning.strip(), now)
        return entry

    async def _fetch(self, entry: CacheEntry, work: Path) -> int:
        archive = self._archive_path("restored")
        try:
            await self._store.fetch(entry.name, archive, entry.sha256)
            return await in_thread(lambda stop: unpack(archive, work, stop))
        except ArtifactMissingError as exc:
            raise ArtifactMissingError("it was evicted at this moment") from exc
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)

    async def _store_new(self) -> None:
        now = self._caches.clock.now()
        if await caches.find(self._store, self._scope, self._key, now) not in (None, self._unusable):
            await self._log.note(f"cache {self._key!r}: another attempt stored it meanwhile")
            return
        archive = self._archive_path("new")
        try:
            packed = await in_thread(lambda stop: self._pack(archive, stop))
            await self._tell_left_out(packed)
            if not packed.entry_count:
                await self._log.note(f"cache {self._key!r}: nothing matches its paths, nothing is stored")
                return
            await self._put(archive, packed)
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)
        self._stored_bytes = packed.size_bytes
        await self._log.note(
            f"cache {self._key!r}: stored, {_entries(packed.entry_count)}, {size_text(packed.size_bytes)}"
        )

    def _pack(self, archive: Path, stop: threading.Event) -> Packed:
        patterns = [compile_pattern(pattern) for pattern in self._policy.paths]

        def is_wanted(name: str) -> bool:
            return any(pattern.fullmatch(name) for pattern in patterns)

        return pack(self._folder.path(), is_wanted, archive, stop, self._caches.limit_bytes)

    async def _put(self, archive: Path, packed: Packed) -> None:
        now, expires_after_s = self._caches.clock.now(), self._policy.expires_after_s
        entry = caches.new_entry(self._scope, self._key, now, expires_after_s, packed.size_bytes, packed.sha256)
        if await self._is_copied(entry):
            await self._log.note(f"cache {self._key!r}: equals what was restored, so its bytes are not sent again")
            return
        stored = await self._store.put(entry.name, archive)
        if stored.sha256 != packed.sha256:
            await self._store.delete(entry.name)
            raise ArtifactError("the archive changed on its way to the store")

    async def _is_copied(self, entry: CacheEntry) -> bool:
        """Says whether the store made the entry of what was restored, because the contents are equal."""
        restored = self._restored
        if restored is None or (restored.sha256, restored.size_bytes) != (entry.sha256, entry.size_bytes):
            return False
        try:
            await self._store.copy(restored.name, entry.name)
        except ArtifactError:  # evicted meanwhile, or beyond what the store can copy: then it is sent
            return False
        return True

    async def _tell_left_out(self, packed: Packed) -> None:
        if packed.left_out:
            count, first = len(packed.left_out), packed.left_out[0]
            await self._log.note(f"cache: {count} symlinks that lead out of the folder are left out, first {first!r}")

    def _archive_path(self, name: str) -> Path:
        """Returns a file beside the working directory: it goes with the attempt's folder, whatever happens."""
        return Path(self._folder.root, f"{name}-cache.tar.zst")


def _digest(work: Path, patterns: tuple[str, ...]) -> tuple[str, list[str]]:
    """Returns the digest of the names and contents of the selected files, and the patterns that selected none."""
    files, unmatched = select_files(work, patterns, ())
    whole = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            content = hashlib.sha256()
            while chunk := file.read(CHUNK_BYTES):
                content.update(chunk)
        whole.update(f"{name}\0{content.hexdigest()}\n".encode())
    return whole.hexdigest()[:_DIGEST_CHARS], unmatched


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Runs blocking work in a thread. A cancellation asks it to stop and returns when it has."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):  # the first cancellation is raised below
                await asyncio.wait({task})
        task.exception()
        raise


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def size_text(size_bytes: int) -> str:
    """Returns a size for people."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
