"""Tar archives between the attempt's folder and a container. Blocking; call it in a thread.

What comes out of a container is not trusted: only folders, files and links between them are taken, and nothing is
written outside of the target. Who reads what a symlink leads to looks where that is, as for any task's folder.
"""

import contextlib
import os
import posixpath
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from executors.foreign_tar import ForeignTar, add_name

_COPY_BYTES: Final = 1024 * 1024
_PERMISSIONS: Final = 0o777
#: What the ant itself has to be able to do with files and folders that it brought.
_FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


def pack(folder: Path, file: IO[bytes]) -> int:
    """Writes all of a folder to ``file`` and returns the size of the archive."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, ".", filter=_anonymous)
    size = file.tell()
    file.seek(0)
    return size


def unpack(file: IO[bytes], folder: Path) -> list[str]:
    """Unpacks files and folders below ``folder``, and links that stay in it; returns the names of all else.

    Permissions are kept, and the times of files, since caches rest on them. Links to files of the same archive become
    copies of their content. Symlinks are made last: nothing is written through them. Memory does not grow with the
    number of entries; of names that were left out the first ones are returned.

    Raises:
        tarfile.TarError: it is no archive, half of one, or one that no tar would write.
        OSError: the disk is full, or two entries want the same path.
    """
    left_out: list[str] = []
    try:
        if _unpack_all(file, folder, left_out, links=False):
            _unpack_all(file, folder, left_out, links=True)
    except (ValueError, OverflowError, KeyError, RecursionError) as exc:
        raise tarfile.ReadError(f"an entry makes no sense: {exc!r}") from exc
    return left_out


def _unpack_all(file: IO[bytes], folder: Path, left_out: list[str], *, links: bool) -> bool:
    """Unpacks the symlinks of an archive, or all else; tells whether there are symlinks."""
    has_links = False
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with ForeignTar.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            has_links = has_links or member.issym()
            if not 0 <= member.size <= size:
                raise tarfile.ReadError(f"{member.name!r} claims to have {member.size} bytes")
            if member.issym() == links and not _unpack_one(archive, member, folder):
                add_name(left_out, member.name)
    return has_links


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    """Makes what an entry is about; tells whether that may be."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return False
    if member.issym():
        return _link(folder, path, member.linkname)
    if member.isdir():
        (folder / path).mkdir(parents=True, exist_ok=True)
        if path.parts:
            _set_mode(folder / path, member.mode & _PERMISSIONS | _FOLDER_MODE)
        return True
    if member.islnk():
        return _copy(folder, member, folder / path)
    source = archive.extractfile(member) if member.isreg() else None
    if source is None:
        return False
    with source:
        _write(source, member, folder / path)
    return True


def _copy(folder: Path, member: tarfile.TarInfo, target: Path) -> bool:
    """Copies the file that a link leads to, which was unpacked before; tells whether there is one."""
    source = folder / member.linkname
    inside = folder.resolve() / posixpath.normpath(member.linkname)
    if not source.is_file() or source.resolve() != inside or not inside.is_relative_to(folder.resolve()):
        return False
    if inside != target.resolve():
        with source.open("rb") as content:
            _write(content, member, target)
    return True


def _write(source: IO[bytes], member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _COPY_BYTES)
    target.chmod(member.mode & _PERMISSIONS | _FILE_MODE)
    with contextlib.suppress(OSError, ValueError, ArithmeticError):  # a time that no disk can hold is no loss
        os.utime(target, (member.mtime, member.mtime))


def _set_mode(folder: Path, mode: int) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _link(folder: Path, path: PurePosixPath, target: str) -> bool:
    """Makes a symlink unless it leads out of the folder, or is the folder; tells whether it did."""
    inner = posixpath.normpath(posixpath.join(*path.parent.parts, target))
    if not path.parts or posixpath.isabs(target) or inner.split("/")[0] == "..":
        return False
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    is_inside = place.parent.resolve().is_relative_to(folder.resolve())
    if not is_inside or (place.is_dir() and not place.is_symlink()):
        return False
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return True


def empty(folder: Path) -> None:
    """Removes what a folder holds, never following a link."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()


def roots(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the folders and files that hold all that globs can select; ``.`` where that is everything."""
    found = {_root(pattern) for pattern in patterns}
    return (".",) if "." in found else tuple(sorted(found))


def _root(pattern: str) -> str:
    parts = []
    for part in PurePosixPath(pattern).parts:
        if any(character in part for character in "*?[{"):
            break
        parts.append(part)
    return "/".join(parts) or "."


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
