"""Artifacts in a local folder: ``file:///folder``.

Rules:

- A key is a path below the root. Every folder on the way is opened without following symbolic links, and the file
  relative to the folder that was opened, so that nothing in the root can lead out of it, also if it changes meanwhile.
- A file is written under a reserved name beside its target, synced, and renamed: it is whole or not there.
- All file I/O runs in threads, 1 MiB at a time.
"""

import contextlib
import errno
import itertools
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from formicary.artifacts.base import (
    ArtifactMissingError,
    ArtifactStore,
    ArtifactStoreUnavailableError,
    SignedPut,
    Stored,
)
from formicary.artifacts.files import (
    READ_FLAGS,
    WRITE_FLAGS,
    Digested,
    Draft,
    check_size,
    chunks_of,
    close_file,
    in_thread,
    open_folder,
    open_source,
    range_of,
    reason_of,
    regular,
    write_draft,
)
from formicary.artifacts.keys import RESERVED_PREFIX, check_key

#: Keys that are read by one thread call.
_PAGE_KEYS: Final = 1000


class LocalStore(ArtifactStore):
    """Files under a root folder, which is created where it does not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open(self) -> None:
        """Creates the root and proves that it can be written to."""
        await in_thread("open", self._prepare_or_say)

    async def close(self) -> None:
        """Has nothing to let go of."""

    async def put(self, key: str, source: Path) -> Stored:
        """Copies a regular file into the store, in one step for whoever reads."""
        parts = check_key(key)
        with await in_thread("read", lambda: open_source(source), close_file) as file:
            draft = await in_thread("write", lambda: Draft.below(self._root, parts), Draft.discard)
            async with contextlib.aclosing(chunks_of(file)) as chunks:
                return await write_draft(draft, chunks, is_durable=True)

    async def get(self, key: str, sha256: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the content; the digest is known, and checked, at the end."""
        digested = Digested(self._chunks(key))
        async with contextlib.aclosing(digested.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
        digested.check(sha256)

    async def _chunks(self, key: str) -> AsyncGenerator[bytes, None]:
        with await in_thread("read", lambda: self._open(key), close_file) as file:
            async with contextlib.aclosing(chunks_of(file)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def get_range(self, key: str, start: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yields a part of a file."""
        with await in_thread("read", lambda: self._open(key), close_file) as file:
            async with contextlib.aclosing(range_of(file, key, start, size_bytes)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        """Writes the content to ``target`` in one step; its folder must exist and be no link."""
        draft = await in_thread("write", lambda: Draft.at(target), Draft.discard)
        async with contextlib.aclosing(self._chunks(key)) as chunks:
            await write_draft(draft, chunks, is_durable=False, sha256=sha256)

    async def copy(self, source: str, target: str) -> None:
        """Links a second name to a file: its bytes never change."""
        parts, new = check_key(source), check_key(target)
        await in_thread("copy", lambda: self._link(parts, new))

    async def presign(self, key: str, expires_s: float) -> str | None:
        """Returns None: a folder has no URL for others."""
        check_key(key)
        return None

    async def presign_put(self, key: str, expires_s: float, sha256: str | None = None) -> SignedPut | None:
        """Returns None: a folder has no URL for others."""
        check_key(key)
        return None

    async def verify(self, key: str, stored: Stored) -> None:
        """Reads the content."""
        async with contextlib.aclosing(self.get(key, stored.sha256)) as chunks:
            check_size(key, sum([len(chunk) async for chunk in chunks]), stored)

    async def delete(self, key: str) -> None:
        """Deletes a file, and the folders that this empties."""
        parts = check_key(key)
        await in_thread("delete", lambda: self._remove(parts))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Yields the keys that begin with ``prefix``, sorted; memory holds the names of one folder a level."""
        keys = self._keys(prefix)
        is_last = False
        while not is_last:
            page = await in_thread("read", lambda: list(itertools.islice(keys, _PAGE_KEYS)))
            is_last = len(page) < _PAGE_KEYS
            for key in page:
                yield key

    async def sweep(self, older_than_s: float) -> int:
        """Deletes drafts whose last byte is older than that."""
        before = time.time() - older_than_s
        return await in_thread("delete", lambda: sum(self._sweep(before)))

    def _prepare_or_say(self) -> None:
        try:
            self._prepare()
        except OSError as exc:
            message = f"folder {self._root} of artifacts cannot be used: {reason_of(exc)}"
            raise ArtifactStoreUnavailableError(f"{message}; choose another by FORMICARY_ARTIFACTS_URL") from exc

    def _prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        probe = self._root / f"{RESERVED_PREFIX}{secrets.token_hex(8)}"
        os.close(os.open(probe, WRITE_FLAGS, 0o600))
        probe.unlink()

    def _open(self, key: str) -> BinaryIO:
        parts = check_key(key)
        try:
            folder = open_folder(self._root, parts[:-1], create=False)
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactMissingError(f"there is no artifact {key}") from None
        try:
            return regular(os.open(parts[-1], READ_FLAGS, dir_fd=folder), key)
        except FileNotFoundError:
            raise ArtifactMissingError(f"there is no artifact {key}") from None
        finally:
            os.close(folder)

    def _link(self, source: tuple[str, ...], target: tuple[str, ...]) -> None:
        draft = Draft.below(self._root, target)
        try:
            folder = open_folder(self._root, source[:-1], create=False)
            try:
                draft.link(source[-1], folder)
            finally:
                os.close(folder)
        except (FileNotFoundError, NotADirectoryError):
            draft.discard()
            raise ArtifactMissingError(f"there is no artifact {'/'.join(source)}") from None
        except BaseException:
            draft.discard()
            raise

    def _remove(self, parts: tuple[str, ...]) -> None:
        if self._unlink(parts, os.unlink):
            for depth in range(len(parts) - 1, 0, -1):
                if not self._unlink(parts[:depth], os.rmdir):
                    return

    def _unlink(self, parts: tuple[str, ...], remove: Callable[..., None]) -> bool:
        """Says whether there was something, and it is gone now."""
        try:
            folder = open_folder(self._root, parts[:-1], create=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            remove(parts[-1], dir_fd=folder)
        except OSError as exc:
            if exc.errno in {errno.ENOENT, errno.ENOTEMPTY, errno.ENOTDIR}:
                return False
            raise
        finally:
            os.close(folder)
        return True

    def _sweep(self, before: float) -> Iterator[bool]:
        for _, _, names, folder in os.fwalk(self._root):
            for name in names:
                if name.startswith(RESERVED_PREFIX):
                    yield _remove_older(name, folder, before)

    def _keys(self, prefix: str) -> Iterator[str]:
        # Only the folder that the prefix names can hold keys that begin with it.
        folder, _, beginning = prefix.rpartition("/")
        yield from self._keys_below(check_key(folder) if folder else (), beginning)

    def _keys_below(self, parts: tuple[str, ...], beginning: str = "") -> Iterator[str]:
        for name in self._names(parts, beginning):
            if name.endswith("/"):
                yield from self._keys_below((*parts, name[:-1]))
            else:
                yield "/".join((*parts, name))

    def _names(self, parts: tuple[str, ...], beginning: str) -> Sequence[str]:
        """Returns the files and, with a slash behind them, the folders of a folder: keys in them sort like this."""
        try:
            folder = open_folder(self._root, parts, create=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(folder) as entries:
                wanted = [entry for entry in entries if entry.name.startswith(beginning) and _is_ours(entry)]
                return sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in wanted)
        finally:
            os.close(folder)


def _is_ours(entry: "os.DirEntry[str]") -> bool:
    """Says whether it is a file that is whole, or a folder."""
    is_either = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
    return is_either and not entry.name.startswith(RESERVED_PREFIX)


def _remove_older(name: str, folder: int, before: float) -> bool:
    """Says whether there was such a file, and it is gone now."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_mtime > before:
            return False
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
