"""Folders as tar archives, both ways, with bounded memory: what goes into a container and what comes out of one.

What comes out is not trusted: nothing is written outside of a target's base or through a symlink, and no symlink is
made that could lead out of it. Whatever is neither file, folder nor link is left out.
"""

import asyncio
import contextlib
import io
import os
import posixpath
import queue
import shutil
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executors.foreign_tar import ForeignTar, add_name

#: Files are read and sent in pieces of this size.
PIECE_BYTES = 1024 * 1024
#: Pieces of an incoming archive that may wait for the disk.
_WAITING_PIECES = 32
_BLOCK_BYTES = 512


class Packer:
    """Collects what an archive shall hold. Names are relative to the root of the container's files."""

    def __init__(self, owner: tuple[int, int] = (0, 0), *, is_open: bool = False) -> None:
        """Prepares an empty archive.

        Args:
            owner: user and group of everything.
            is_open: everybody may read and write: for a user whose number is not known here.
        """
        self._owner = owner
        self._is_open = is_open
        self._parts: list[Callable[[], Iterator[bytes]]] = []

    def add_folder(self, name: str, mode: int = 0o755) -> None:
        """Adds an empty folder."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        header = self._header(info)
        self._parts.append(lambda: iter((header,)))

    def add_bytes(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a small file."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        header = self._header(info)
        self._parts.append(lambda: iter((header, data, _padding(len(data)))))

    def add_tree(self, name: str, folder: Path) -> None:
        """Adds what a folder holds, below ``name``; read when the archive is."""
        self._parts.append(lambda: self._tree(name, folder))

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yields the archive; files are read in a thread."""
        stream = self._stream()
        while (piece := await asyncio.to_thread(next, stream, None)) is not None:
            yield piece

    def _stream(self) -> Iterator[bytes]:
        """Yields the archive in pieces of at least ``PIECE_BYTES``, so that small files cost no round trip each."""
        waiting = bytearray()
        for part in self._parts:
            for data in part():
                waiting += data
                if len(waiting) >= PIECE_BYTES:
                    yield bytes(waiting)
                    waiting.clear()
        yield bytes(waiting) + bytes(2 * _BLOCK_BYTES)

    def _tree(self, name: str, folder: Path) -> Iterator[bytes]:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                yield from self._entry(f"{name}/{entry.name}", entry)

    def _entry(self, name: str, entry: "os.DirEntry[str]") -> Iterator[bytes]:
        found = entry.stat(follow_symlinks=False)
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = found.st_mode & 0o7777, int(found.st_mtime)
        if entry.is_symlink():
            info.type, info.linkname = tarfile.SYMTYPE, str(Path(entry.path).readlink())
            yield self._header(info)
        elif entry.is_dir():
            info.type = tarfile.DIRTYPE
            yield self._header(info)
            yield from self._tree(name, Path(entry.path))
        elif entry.is_file():
            info.size = found.st_size
            yield self._header(info)
            yield from _content(Path(entry.path), info.size)

    def _header(self, info: tarfile.TarInfo) -> bytes:
        info.uid, info.gid = self._owner
        if self._is_open:
            info.mode |= 0o777 if info.isdir() or info.mode & 0o100 else 0o666
        return info.tobuf(tarfile.PAX_FORMAT)


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Yields exactly ``size`` bytes, whatever happens to the file meanwhile, and the padding."""
    left = size
    with path.open("rb") as file:
        while left and (data := file.read(min(PIECE_BYTES, left))):
            left -= len(data)
            yield data
    yield bytes(left) + _padding(size)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class Target:
    """A place for what is unpacked: the path ``place`` below ``base``, a folder that nothing leaves."""

    base: Path
    place: str = "."


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What became of an archive's entries that are no plain files and folders, by their paths below the base."""

    #: Symlinks that were made; none leads out of the base.
    links: list[str] = field(default_factory=list)
    #: Symlinks that were not made: their text alone does not tell that they stay inside. The first of them.
    astray: list[str] = field(default_factory=list)
    #: All else; the first of it.
    left_out: list[str] = field(default_factory=list)


async def unpack(pieces: AsyncIterator[bytes], targets: Mapping[str, Target]) -> Unpacked:
    """Unpacks an archive; files and links in its way are replaced.

    Args:
        pieces: the archive.
        targets: where the entry of a name, and all below it, belongs; entries of no target are passed over.

    Raises:
        OSError: the disk would not.
        tarfile.TarError: the archive ends too early, or is none.
    """
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(_WAITING_PIECES)
    reader = _PieceReader(lambda: loop.call_soon_threadsafe(room.release))
    work = asyncio.ensure_future(asyncio.to_thread(_unpack_all, reader, targets))
    try:
        async for piece in pieces:
            await _room_or_end(room, work)
            if work.done():
                break
            reader.feed(piece)
    except BaseException:
        reader.is_cut = True
        work.add_done_callback(lambda done: done.exception())
        raise
    finally:
        reader.feed(b"")
        await asyncio.wait({work})
    return work.result()


async def _room_or_end(room: asyncio.Semaphore, work: "asyncio.Future[Unpacked]") -> None:
    if not room.locked():
        await room.acquire()
        return
    waiting: asyncio.Future[bool] = asyncio.ensure_future(room.acquire())
    ends: set[asyncio.Future[Any]] = {waiting, work}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


class _PieceReader(io.RawIOBase):
    """A file whose content is fed by another thread; an empty piece is its end."""

    def __init__(self, on_taken: Callable[[], object]) -> None:
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._on_taken = on_taken
        self._piece = memoryview(b"")
        self._is_over = False
        #: The rest will not come: what was begun must not look whole.
        self.is_cut = False

    def feed(self, piece: bytes) -> None:
        """Adds a piece."""
        self._pieces.put(piece)

    def readable(self) -> bool:
        """Tells that it can be read."""
        return True

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]
        """Fills a buffer as far as the current piece goes."""
        while not self._piece and not self._is_over:
            self._piece = memoryview(self._pieces.get())
            self._is_over = not self._piece
            if not self._is_over:
                self._on_taken()
        if self.is_cut:
            raise tarfile.ReadError("the archive was cut off")
        taken = self._piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._piece = self._piece[len(taken) :]
        return len(taken)


def _unpack_all(reader: _PieceReader, targets: Mapping[str, Target]) -> Unpacked:
    done = Unpacked()
    buffered = io.BufferedReader(reader, PIECE_BYTES)
    name = ""
    try:
        with ForeignTar.open(fileobj=buffered, mode="r|", bufsize=PIECE_BYTES) as archive:
            while (member := archive.next()) is not None:
                name = member.name
                found = _target(_inner_name(name, targets), targets)
                if found is not None:
                    _unpack_one(archive, member, *found, targets, done)
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError) as exc:
        raise tarfile.ReadError(f"the archive is damaged at its entry {name!r}, or just behind: {exc}") from exc
    while buffered.read(PIECE_BYTES):
        pass  # what follows the end of the archive
    return done


def _inner_name(name: str, targets: Mapping[str, Target]) -> str:
    """Returns the plain name of an entry; Podman names those of a volume from its root."""
    plain = posixpath.normpath(name)
    return posixpath.normpath(next(iter(targets)) + plain) if plain.startswith("/") else plain


def _target(name: str, targets: Mapping[str, Target]) -> tuple[Path, str] | None:
    """Returns the base of an entry's target, and the entry's own path below it."""
    for prefix, target in targets.items():
        if name == prefix or name.startswith(prefix + "/"):
            return target.base, posixpath.normpath(target.place + name.removeprefix(prefix))
    return None


def _unpack_one(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    base: Path,
    inner: str,
    targets: Mapping[str, Target],
    done: Unpacked,
) -> None:
    """Writes one entry, or notes that it did not."""
    if member.issym():
        is_made = _leads_inside(inner, member.linkname) and make_link(base, inner, member.linkname)
        if is_made:
            done.links.append(inner)
        else:
            add_name(done.astray, inner)
        return
    path = _place(base, inner)
    if member.isdir():
        _make_folder(path)
        if path != base:
            _set_mode(path, member.mode & 0o777 | 0o700)
        return
    if member.islnk():
        source = _target(_inner_name(member.linkname, targets), targets)
        is_made = source is not None and _hard_link(*source, path)
    else:
        is_made = _write(archive, member, path)
    if not is_made:
        add_name(done.left_out, inner)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bool:
    """Writes a file; tells whether it is one."""
    content = archive.extractfile(member) if member.isreg() else None
    if content is None or not _clear(path):
        return False
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, member.mode & 0o777 | 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := content.read(PIECE_BYTES):
            file.write(piece)
    with contextlib.suppress(OSError, ValueError, ArithmeticError):  # a time that no disk can hold is no loss
        os.utime(path, (member.mtime, member.mtime))
    return True


def make_link(base: Path, inner: str, text: str) -> bool:
    """Makes a symlink at a path below a folder, through no other link; tells whether it did. Blocks."""
    path = _place(base, inner)
    if path == base or not _clear(path):
        return False
    path.symlink_to(text)
    return True


def clear(base: Path, inner: str) -> None:
    """Removes what lies at a path below a folder; of the folder itself, all that it holds. Blocks."""
    path = _place(base, inner)
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path)
    if path == base:
        path.mkdir()


def _leads_inside(inner: str, text: str) -> bool:
    """Tells whether a symlink stays in the base, whatever else lies there.

    ``..`` may stand only in front, where it goes up from true folders: behind a name, which may be a link itself, it
    may lead anywhere.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    ups = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    return not text.startswith("/") and ".." not in parts[ups:] and ups <= inner.count("/")


def _place(base: Path, inner: str) -> Path:
    """Returns the path below the base; the folders on the way are made, and are no links.

    Raises:
        ValueError: the path climbs.
    """
    parts = [part for part in inner.split("/") if part != "."]
    if ".." in parts:
        raise ValueError(f"{inner!r} is outside")
    path = base
    for part in parts:
        _make_folder(path)
        path = path / part
    return path


def _make_folder(path: Path) -> None:
    """Makes a folder, in place of a file or link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    path.mkdir(parents=True, exist_ok=True)


def _set_mode(folder: Path, mode: int) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _clear(path: Path) -> bool:
    """Removes a file or link that is in the way."""
    if path.is_dir() and not path.is_symlink():
        return False
    path.unlink(missing_ok=True)
    return True


def _hard_link(base: Path, inner: str, path: Path) -> bool:
    parts = inner.split("/")
    places = [base.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
    source = base / inner
    if ".." in parts or any(place.is_symlink() for place in places) or not source.is_file():
        return False
    if source == path or not _clear(path):
        return False
    path.hardlink_to(source)
    return True
