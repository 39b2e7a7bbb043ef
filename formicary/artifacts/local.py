"""Artifacts in a local folder: ``file:///folder``.

Rules:

- A key is a path below the root. Every folder on the way is opened without following symbolic links, and the file
  relative to the folder that was opened, so that nothing in the root can lead out of it, also if it changes meanwhile.
- A file is written under a reserved name beside its target, synced, and renamed: it is whole or not there.
- All file I/O runs in threads, 1 MiB at a time.
"""

import asyncio
import contextlib
import errno
import functools
import hashlib
import os
import posixpath
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from formicary.artifacts.base import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ArtifactStore,
    ArtifactStoreUnavailableError,
    Stored,
)
from formicary.artifacts.keys import RESERVED_PREFIX, check_key

CHUNK_BYTES: Final = 1024 * 1024
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Deletes that may empty a folder under a put before it gives up.
_RACES: Final = 5

T = TypeVar("T")


class LocalStore(ArtifactStore):
    """Files under a root folder, which is created where it does not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def open(self) -> None:
        """Creates the root and proves that it can be written to."""
        await _in_thread("open", self._prepare)

    async def close(self) -> None:
        """Has nothing to let go of."""

    async def put(self, key: str, source: Path) -> Stored:
        """Copies a regular file into the store, in one step for whoever reads."""
        parts = check_key(key)
        with await _in_thread("read", lambda: _open_source(source), _close) as file:
            draft = await _in_thread("write", lambda: _Draft.below(self._root, parts), _Draft.discard)
            async with contextlib.aclosing(_chunks(file)) as chunks:
                return await _write(draft, chunks)

    async def get(self, key: str, sha256: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the content; the digest is known, and checked, at the end."""
        digest = hashlib.sha256()
        with await _in_thread("read", lambda: self._open(key), _close) as file:
            async for chunk in _chunks(file):
                digest.update(chunk)
                yield chunk
        if sha256 is not None and digest.hexdigest() != sha256:
            raise ArtifactCorruptError(f"{key} has sha256 {digest.hexdigest()}, not {sha256}")

    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        """Writes the content to ``target`` in one step; its folder must exist and be no link."""
        draft = await _in_thread("write", lambda: _Draft.at(target), _Draft.discard)
        async with contextlib.aclosing(self.get(key, sha256)) as chunks:
            await _write(draft, chunks)

    async def presign(self, key: str, expires_s: float) -> str | None:
        """Returns None: a folder has no URL for others."""
        check_key(key)
        return None

    async def delete(self, key: str) -> None:
        """Deletes a file, and the folders that this empties."""
        parts = check_key(key)
        await _in_thread("delete", lambda: self._remove(parts))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Yields the keys that begin with ``prefix``, sorted."""
        for key in await _in_thread("read", lambda: sorted(self._keys(prefix))):
            yield key

    def _prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        probe = self._root / f"{RESERVED_PREFIX}{secrets.token_hex(8)}"
        os.close(os.open(probe, _WRITE_FLAGS, 0o600))
        probe.unlink()

    def _open(self, key: str) -> BinaryIO:
        parts = check_key(key)
        try:
            folder = _open_folder(self._root, parts[:-1], create=False)
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactMissingError(f"there is no artifact {key}") from None
        try:
            return _regular(os.open(parts[-1], _READ_FLAGS, dir_fd=folder), key)
        except FileNotFoundError:
            raise ArtifactMissingError(f"there is no artifact {key}") from None
        finally:
            os.close(folder)

    def _remove(self, parts: tuple[str, ...]) -> None:
        if self._unlink(parts, os.unlink):
            for depth in range(len(parts) - 1, 0, -1):
                if not self._unlink(parts[:depth], os.rmdir):
                    return

    def _unlink(self, parts: tuple[str, ...], remove: Callable[..., None]) -> bool:
        """Says whether there was something, and it is gone now."""
        try:
            folder = _open_folder(self._root, parts[:-1], create=False)
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

    def _keys(self, prefix: str) -> Iterator[str]:
        # Only the folder that the prefix names can hold keys that begin with it.
        folder = prefix.rpartition("/")[0]
        try:
            start = _open_folder(self._root, check_key(folder) if folder else (), create=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            for parent, _, names, descriptor in os.fwalk(dir_fd=start):
                for name in names:
                    key = posixpath.normpath(posixpath.join(folder, parent, name))
                    if key.startswith(prefix) and not name.startswith(RESERVED_PREFIX) and _is_file(name, descriptor):
                        yield key
        finally:
            os.close(start)


class _Draft:
    """A file that is being written beside its target; ``commit`` renames it, ``discard`` leaves nothing."""

    def __init__(self, folder: int, name: str) -> None:
        self._folder = folder
        self._name = name
        self._temporary = f"{RESERVED_PREFIX}{secrets.token_hex(8)}"
        self.file: BinaryIO = open(  # noqa: SIM115, PTH123 - closed by commit and discard; wraps a descriptor
            os.open(self._temporary, _WRITE_FLAGS, 0o640, dir_fd=folder), "wb", buffering=0
        )

    @classmethod
    def at(cls, target: Path) -> "_Draft":
        return cls._in(os.open(target.parent, _FOLDER_FLAGS), target.name)

    @classmethod
    def below(cls, root: Path, parts: tuple[str, ...]) -> "_Draft":
        for _ in range(_RACES):
            # A delete may remove the folder, empty at that moment, between its making and the draft's.
            with contextlib.suppress(FileNotFoundError):
                return cls._in(_open_folder(root, parts[:-1], create=True), parts[-1])
        return cls._in(_open_folder(root, parts[:-1], create=True), parts[-1])

    @classmethod
    def _in(cls, folder: int, name: str) -> "_Draft":
        try:
            return cls(folder, name)
        except BaseException:
            os.close(folder)
            raise

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def commit(self) -> None:
        os.fsync(self.file.fileno())
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)
        self._close()

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder)
        self._close()

    def _close(self) -> None:
        self.file.close()
        os.close(self._folder)


async def _write(draft: _Draft, chunks: AsyncIterator[bytes]) -> Stored:
    """Fills and commits a draft; on any error, and when cancelled, nothing of it stays."""
    digest, size_bytes = hashlib.sha256(), 0
    try:
        async for chunk in chunks:
            digest.update(chunk)
            size_bytes += len(chunk)
            await _in_thread("write", functools.partial(draft.write, chunk))
    except BaseException:
        draft.discard()
        raise
    await _in_thread("write", lambda: _commit(draft))
    return Stored(digest.hexdigest(), size_bytes)


def _commit(draft: _Draft) -> None:
    try:
        draft.commit()
    except OSError:
        draft.discard()
        raise


async def _chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await _in_thread("read", lambda: file.read(CHUNK_BYTES)):
        yield chunk


def _open_source(source: Path) -> BinaryIO:
    return _regular(os.open(source, _READ_FLAGS), str(source))


def _regular(descriptor: int, name: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactStoreUnavailableError(f"{name} is not a regular file")
    return open(descriptor, "rb", buffering=0)


def _is_file(name: str, folder: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _close(file: BinaryIO) -> None:
    file.close()


def _open_folder(root: Path, parts: tuple[str, ...], *, create: bool) -> int:
    """Opens the folder below ``root`` step by step, so that no link is followed."""
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            following = _open_part(current, part, create=create)
        finally:
            os.close(current)
        current = following
    return current


def _open_part(folder: int, part: str, *, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o750, dir_fd=folder)
    return os.open(part, _FOLDER_FLAGS, dir_fd=folder)


#: What an error of the file system means to whoever waits for the artifact.
_REASONS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ELOOP: "a symbolic link is in the way, and none is followed",
    errno.ENOTDIR: "a file or symbolic link is in the way of a folder",
    errno.EISDIR: "a folder is in the way of the file",
}


async def _in_thread(verb: str, work: Callable[[], T], release: Callable[[T], None] | None = None) -> T:
    """Runs file I/O in a thread; its errors become the store's.

    A thread cannot be stopped, and what it uses must not be closed under it: a cancellation waits for its end, and
    ``release`` lets go of what it returned.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _finished(task)
        if release is not None and not task.cancelled() and task.exception() is None:
            release(task.result())
        raise
    except OSError as exc:
        reason = _REASONS.get(exc.errno or 0, exc.strerror or str(exc))
        where = f" ({exc.filename})" if exc.filename else ""
        raise ArtifactStoreUnavailableError(f"cannot {verb} artifact: {reason}{where}") from exc


async def _finished(task: "asyncio.Future[T]") -> None:
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):  # the first cancellation is raised by the caller
            await asyncio.wait({task})
