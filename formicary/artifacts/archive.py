"""Folders as one file: a deterministic tar, compressed with zstd.

Rules:

- Equal trees (names, contents, permissions, times of files to the second) give equal bytes: entries come sorted, owners
  and whatever else differs from machine to machine are left out. Without times, files that were made anew with the
  same contents are equal too, and are dated by when they are unpacked.
- Symlinks are kept as such and never followed. One that leads out of the folder is not packed; unpacking refuses it.
- Unpacking opens each folder on the way without following links, and replaces nothing that is there. It does all or
  nothing: what it made before an error is removed.
- Everything blocks, and streams: memory holds one chunk, and the names of the folders on the way.
"""

import contextlib
import hashlib
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, NamedTuple, Protocol, cast

import zstandard

from executors.foreign_tar import ForeignTar
from formicary.artifacts.base import ArtifactError
from formicary.artifacts.unpacking import Tree

CHUNK_BYTES: Final = 1024 * 1024
#: No archive reaches it.
NO_LIMIT: Final = 2**62
#: Compression level: beyond it the time grows faster than the file shrinks.
LEVEL: Final = 3
#: What the reader takes at once: it copies the rest of it with each member, so more would cost more.
_READ_BYTES: Final = 32 * 1024
#: What an archive may ask for to be unpacked.
_WINDOW_BYTES: Final = 128 * 1024 * 1024
_PERMISSIONS: Final = 0o777
_SOURCE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArchiveError(ArtifactError):
    """A folder cannot be packed or an archive not be unpacked; the text says why."""


class ArchiveTooLargeError(ArchiveError):
    """The archive grew beyond its limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"it has more than {limit_bytes} bytes, even packed")
        self.limit_bytes = limit_bytes


class ArchiveStoppedError(ArchiveError):
    """The work was to stop."""


class Packed(NamedTuple):
    """An archive that was written. ``left_out``: symlinks that lead out of the folder."""

    sha256: str
    size_bytes: int
    entry_count: int
    left_out: tuple[str, ...]


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def pack(
    folder: Path,
    is_wanted: Callable[[str], bool],
    target: Path,
    stop: threading.Event,
    limit_bytes: int = NO_LIMIT,
    *,
    keeps_times: bool = True,
) -> Packed:
    """Packs what is wanted of a folder, by relative path, into the new file ``target``.

    Without times, trees that were made at different times give equal bytes.

    Raises:
        ArchiveTooLargeError: the archive grew beyond ``limit_bytes``.
        ArchiveStoppedError: ``stop`` was set.
        ArchiveError: something cannot be read or written. ``target`` may be there in part.
    """
    left_out: list[str] = []
    count = 0
    try:
        with target.open("xb") as file:
            sink = _Hashed(file, limit_bytes, stop)
            with zstandard.ZstdCompressor(level=LEVEL).stream_writer(cast("IO[bytes]", sink), closefd=False) as packer:
                for entry, name in _walk(folder):
                    if is_wanted(name):
                        count += _add(packer, entry, name, left_out, keeps_times=keeps_times)
                packer.write(tarfile.NUL * 2 * tarfile.BLOCKSIZE)
    except (OSError, zstandard.ZstdError) as exc:
        raise ArchiveError(_reason(exc)) from exc
    return Packed(sink.digest.hexdigest(), sink.size_bytes, count, tuple(left_out))


def unpack(source: Path, folder: Path, stop: threading.Event, *, replaces: bool = False) -> int:
    """Unpacks an archive into a folder, beside what is there; returns the number of entries.

    Files and links that are there stay, or with ``replaces`` make way.

    Raises:
        ArchiveStoppedError: ``stop`` was set.
        ArchiveError: it is no archive of ours, would leave the folder, or cannot be written. Nothing of it is left.
    """
    with Tree(folder, replaces=replaces) as tree:
        try:
            count = _unpack(source, tree, stop)
            tree.finish()
        except (OSError, tarfile.TarError, zstandard.ZstdError, ValueError) as exc:
            tree.undo()
            raise ArchiveError(_reason(exc)) from exc
        except BaseException:
            tree.undo()
            raise
    return count


def leads_inside(name: str, target: str) -> bool:
    """Says whether a symlink at the path ``name`` stays in the folder, whatever else lies there.

    ``..`` is allowed only in front, where it goes up from real folders: behind a name, which may be a link itself, it
    may lead anywhere.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = sum(part == ".." for part in parts)
    return not target.startswith("/") and bool(parts) and parts[:ups] == [".."] * ups and ups <= name.count("/")


def _walk(folder: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Yields entries with their relative paths, sorted; a folder comes before what it holds."""
    levels = [(_sorted_entries(folder), "")]
    while levels:
        entries, prefix = levels[-1]
        entry = next(entries, None)
        if entry is None:
            levels.pop()
            continue
        name = prefix + entry.name
        yield entry, name
        if entry.is_dir(follow_symlinks=False):
            levels.append((_sorted_entries(entry.path), name + "/"))


def _sorted_entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        return iter(sorted(scan, key=lambda entry: entry.name))


def _add(packer: _Writer, entry: os.DirEntry[str], name: str, left_out: list[str], *, keeps_times: bool) -> bool:
    """Adds one entry; sockets, pipes and devices are passed over."""
    status = entry.stat(follow_symlinks=False)
    header = tarfile.TarInfo(name)
    header.mode = stat.S_IMODE(status.st_mode) & _PERMISSIONS
    if stat.S_ISLNK(status.st_mode):
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, str(Path(entry.path).readlink()), _PERMISSIONS
        if not leads_inside(name, header.linkname):
            left_out.append(name)
            return False
    elif stat.S_ISDIR(status.st_mode):
        header.type = tarfile.DIRTYPE
    elif not stat.S_ISREG(status.st_mode):
        return False
    else:
        header.size, header.mtime = status.st_size, max(int(status.st_mtime), 0) if keeps_times else 0
    packer.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    if header.isreg():
        _copy_in(packer, entry.path, header.size)
    return True


def _copy_in(packer: _Writer, path: str, size_bytes: int) -> None:
    with os.fdopen(os.open(path, _SOURCE_FLAGS), "rb", buffering=0) as file:
        left = size_bytes
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise ArchiveError(f"{path} became shorter while it was read")
            packer.write(chunk)
            left -= len(chunk)
    packer.write(tarfile.NUL * (-size_bytes % tarfile.BLOCKSIZE))


def _unpack(source: Path, tree: Tree, stop: threading.Event) -> int:
    count = 0
    with (
        source.open("rb") as file,
        _reader(file) as reader,
        ForeignTar.open(fileobj=reader, mode="r|", bufsize=_READ_BYTES) as archive,
    ):
        while (member := archive.next()) is not None:
            if stop.is_set():
                raise ArchiveStoppedError("stopped")
            _extract(archive, member, tree)
            count += 1
    return count


def _reader(file: BinaryIO) -> "contextlib.AbstractContextManager[IO[bytes]]":
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).stream_reader(file, closefd=False)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree) -> None:
    mode = member.mode & _PERMISSIONS
    if member.isdir():
        tree.add_folder(member.name, mode)
    elif member.issym():
        if not leads_inside(member.name, member.linkname):
            raise ArchiveError(f"{member.name!r} is a symlink that leads out of the folder")
        tree.add_link(member.name, member.linkname)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None, "regular members have content"
        with contextlib.closing(content):
            tree.add_file(member.name, mode, member.mtime, iter(lambda: content.read(CHUNK_BYTES), b""))
    else:
        raise ArchiveError(f"{member.name!r} is neither a file, a folder nor a symlink")


class _Hashed:
    """Writes to a file and keeps its digest and size."""

    def __init__(self, file: BinaryIO, limit_bytes: int, stop: threading.Event) -> None:
        self._file = file
        self._limit_bytes = limit_bytes
        self._stop = stop
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        if self._stop.is_set():
            raise ArchiveStoppedError("stopped")
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise ArchiveTooLargeError(self._limit_bytes)
        self.digest.update(data)
        return self._file.write(data)


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror + (f" ({exc.filename})" if exc.filename else "")
    return str(exc) or type(exc).__name__
