"""File I/O of the artifact stores, in threads: reading sources, and writing targets in one step."""

import asyncio
import contextlib
import errno
import functools
import hashlib
import os
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from formicary.artifacts.base import ArtifactCorruptError, ArtifactStoreUnavailableError, Stored
from formicary.artifacts.keys import RESERVED_PREFIX

CHUNK_BYTES: Final = 1024 * 1024
#: What is read again to be digested: it stays in the processor's cache.
_DIGESTED_BYTES: Final = 256 * 1024
FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Deletes that may empty a folder under a put before it gives up.
_RACES: Final = 5

T = TypeVar("T")


class Digested:
    """Content on its way through, and the digest of what has passed."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the content; once."""
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                self._digest.update(chunk)
                yield chunk

    def check(self, sha256: str | None) -> None:
        """Raises ``ArtifactCorruptError`` where something else passed than was asked for."""
        check_digest(self._digest.hexdigest(), sha256)


def check_digest(found: str, sha256: str | None) -> None:
    """Raises ``ArtifactCorruptError`` where a digest is not what was asked for, if something was."""
    if sha256 is not None and found != sha256:
        raise ArtifactCorruptError(f"the content has sha256 {found}, not {sha256}")


def check_size(key: str, size_bytes: int, stored: Stored) -> None:
    """Raises ``ArtifactCorruptError`` where a content has another size."""
    if size_bytes != stored.size_bytes:
        raise ArtifactCorruptError(f"{key} has {size_bytes} bytes, not {stored.size_bytes}")


class Draft:
    """A file that is being written beside its target, and its digest.

    ``commit`` renames it, ``discard`` leaves nothing.
    """

    def __init__(self, folder: int, name: str) -> None:
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._folder = folder
        self._name = name
        self._temporary = f"{RESERVED_PREFIX}{secrets.token_hex(8)}"
        self.file: BinaryIO = open(  # noqa: SIM115, PTH123 - closed by commit and discard; wraps a descriptor
            os.open(self._temporary, WRITE_FLAGS, 0o640, dir_fd=folder), "wb", buffering=0
        )

    @classmethod
    def at(cls, target: Path) -> "Draft":
        """Returns a draft of a file whose folder exists and is no link."""
        return cls._in(os.open(target.parent, FOLDER_FLAGS), target.name)

    @classmethod
    def below(cls, root: Path, parts: tuple[str, ...]) -> "Draft":
        """Returns a draft of a file below ``root``; makes the folders on the way, and follows no link."""
        for _ in range(_RACES):
            # A delete may remove the folder, empty at that moment, between its making and the draft's.
            with contextlib.suppress(FileNotFoundError):
                return cls._in(open_folder(root, parts[:-1], create=True), parts[-1])
        return cls._in(open_folder(root, parts[:-1], create=True), parts[-1])

    @classmethod
    def _in(cls, folder: int, name: str) -> "Draft":
        try:
            return cls(folder, name)
        except BaseException:
            os.close(folder)
            raise

    def write(self, data: bytes) -> None:
        """Appends all of it."""
        self._digest.update(data)
        self._size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]

    def write_at(self, start: int, pieces: Sequence[bytes]) -> None:
        """Writes all of them to a place; they are digested later, by ``digest``."""
        written = os.pwritev(self.file.fileno(), pieces, start)
        for piece in pieces:
            view, written = memoryview(piece)[written:], max(written - len(piece), 0)
            while view:
                count = os.pwrite(self.file.fileno(), view, start + len(piece) - len(view))
                view = view[count:]
            start += len(piece)

    def digest(self, size_bytes: int) -> None:
        """Passes what was written next through the digest."""
        end, room = self._size_bytes + size_bytes, memoryview(bytearray(_DIGESTED_BYTES))
        while self._size_bytes < end:
            count = os.preadv(self.file.fileno(), [room[: end - self._size_bytes]], self._size_bytes)
            if not count:
                raise ArtifactCorruptError(f"{self._name} became shorter while it was written")
            self._digest.update(room[:count])
            self._size_bytes += count

    def stored(self) -> Stored:
        """Returns what was written."""
        return Stored(self._digest.hexdigest(), self._size_bytes)

    def commit(self, *, is_durable: bool) -> None:
        """Shows the file under its name; durable, it also survives a loss of power."""
        if is_durable:
            os.fsync(self.file.fileno())
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        if is_durable:
            os.fsync(self._folder)
        self._close()

    def link(self, name: str, folder: int) -> None:
        """Shows a file that is there already, durably, under this one's name too; nothing was written."""
        # As long as the draft is there, nobody removes the folder that it lies in as an empty one.
        link = f"{self._temporary}-link"
        os.link(name, link, src_dir_fd=folder, dst_dir_fd=self._folder, follow_symlinks=False)
        os.rename(link, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        with contextlib.suppress(FileNotFoundError):  # it stays where it has the name already
            os.unlink(link, dir_fd=self._folder)
        os.fsync(self._folder)
        self.discard()

    def discard(self) -> None:
        """Leaves nothing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder)
        self._close()

    def _close(self) -> None:
        self.file.close()
        os.close(self._folder)


async def write_draft(
    draft: Draft, chunks: AsyncIterator[bytes], *, is_durable: bool, sha256: str | None = None
) -> Stored:
    """Fills and commits a draft; on any error, and when cancelled, nothing of it stays.

    While one chunk is written, and passed through the digest, the next one is awaited.

    Raises:
        ArtifactCorruptError: there is a digest that it must have, and it has another one.
    """
    writing: asyncio.Task[None] | None = None
    try:
        async for chunk in chunks:
            if writing is not None:
                await writing
            writing = asyncio.create_task(in_thread("write", functools.partial(draft.write, chunk)))
        if writing is not None:
            await writing
        check_digest(draft.stored().sha256, sha256)
    except BaseException:
        if writing is not None:
            await _finished(writing)
        draft.discard()
        raise
    await commit(draft, is_durable=is_durable)
    return draft.stored()


async def commit(draft: Draft, *, is_durable: bool) -> None:
    """Shows a draft under its name; where that fails, nothing of it stays."""
    await in_thread("write", lambda: _commit(draft, is_durable=is_durable))


def _commit(draft: Draft, *, is_durable: bool) -> None:
    try:
        draft.commit(is_durable=is_durable)
    except OSError:
        draft.discard()
        raise


async def chunks_of(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """Yields the content of a file, up to where it ends now: a file that goes on growing would have no end."""
    async with contextlib.aclosing(_chunks_of(file, os.fstat(file.fileno()).st_size)) as chunks:
        async for chunk in chunks:
            yield chunk


async def range_of(file: BinaryIO, key: str, start: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yields a part of a file; raises ``ArtifactCorruptError`` where the file ends before it does."""
    if os.fstat(file.fileno()).st_size < start + size_bytes:
        raise too_short(key, start + size_bytes)
    file.seek(start)
    async with contextlib.aclosing(_chunks_of(file, size_bytes)) as chunks:
        async for chunk in chunks:
            yield chunk


def too_short(key: str, end: int) -> ArtifactCorruptError:
    """Returns the error of a content that ends before what is wanted of it."""
    return ArtifactCorruptError(f"{key} ends before byte {end}")


async def _chunks_of(file: BinaryIO, left_bytes: int) -> AsyncGenerator[bytes, None]:
    while chunk := await in_thread("read", functools.partial(file.read, min(CHUNK_BYTES, left_bytes))):
        left_bytes -= len(chunk)
        yield chunk


def open_source(source: Path) -> FileIO:
    """Opens a file that is to be stored; a link is not followed."""
    return regular(os.open(source, READ_FLAGS), str(source))


def open_source_and_read(source: Path, limit_bytes: int) -> tuple[BinaryIO, bytes | None]:
    """Opens a file that is to be stored, and reads it where it is no larger than a limit."""
    file = open_source(source)
    try:
        size_bytes = os.fstat(file.fileno()).st_size
        return file, os.pread(file.fileno(), size_bytes, 0) if size_bytes <= limit_bytes else None
    except OSError:
        file.close()
        raise


def regular(descriptor: int, name: str) -> FileIO:
    """Returns the file behind a descriptor, which is closed where it is no regular file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactStoreUnavailableError(f"{name} is not a regular file")
    return open(descriptor, "rb", buffering=0)


def close_file(file: BinaryIO) -> None:
    """Closes, for whoever passes a function on."""
    file.close()


def open_folder(root: Path, parts: tuple[str, ...], *, create: bool) -> int:
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
    return os.open(part, FOLDER_FLAGS, dir_fd=folder)


#: What an error of the file system means to whoever waits for the artifact.
_REASONS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EACCES: "permission denied",
    errno.EEXIST: "a file is in the way",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ELOOP: "a symbolic link is in the way, and none is followed",
    errno.ENOTDIR: "a file or symbolic link is in the way of a folder",
    errno.EISDIR: "a folder is in the way of the file",
}


async def in_thread(verb: str, work: Callable[[], T], release: Callable[[T], None] | None = None) -> T:
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
        raise ArtifactStoreUnavailableError(f"cannot {verb} artifact: {reason_of(exc)}") from exc


def reason_of(exc: OSError) -> str:
    """Returns what failed, and where."""
    reason = _REASONS.get(exc.errno or 0, exc.strerror or str(exc))
    return f"{reason} ({exc.filename})" if exc.filename else reason


async def _finished(task: "asyncio.Future[T]") -> None:
    """Waits for the end of a task, whatever it is."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):  # the first cancellation is raised by the caller
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # is known to the caller, who raises it or another one
