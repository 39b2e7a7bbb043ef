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
    copies of their content. Symlinks are made last: nothing is written through them.

    Raises:
        tarfile.TarError: it is no archive, half of one, or one that no tar would write.
        OSError: the disk is full, or two entries want the same path.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            return _unpack_all(archive, size, folder)
    except (ValueError, OverflowError, KeyError, RecursionError) as exc:
        raise tarfile.ReadError(f"an entry makes no sense: {exc!r}") from exc


def _unpack_all(archive: tarfile.TarFile, size: int, folder: Path) -> list[str]:
    left_out: list[str] = []
    links: list[tuple[str, PurePosixPath, str]] = []
    folders: list[tuple[Path, int]] = []
    for member in archive:
        path = PurePosixPath(member.name)
        if not 0 <= member.size <= size:
            raise tarfile.ReadError(f"{member.name!r} claims to have {member.size} bytes")
        if path.is_absolute() or ".." in path.parts:
            left_out.append(member.name)
        elif member.issym():
            links.append((member.name, path, member.linkname))
        elif member.isdir():
            (folder / path).mkdir(parents=True, exist_ok=True)
            if path.parts:
                folders.append((folder / path, member.mode & _PERMISSIONS | _FOLDER_MODE))
        elif not _unpack_file(archive, member, folder / path):
            left_out.append(member.name)
    for place, mode in folders:
        _set_mode(place, mode)
    return left_out + [name for name, path, target in links if not _link(folder, path, target)]


def _unpack_file(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> bool:
    """Writes a file; tells whether it is one."""
    source = archive.extractfile(member) if member.isreg() or member.islnk() else None
    if source is None:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, _COPY_BYTES)
    target.chmod(member.mode & _PERMISSIONS | _FILE_MODE)
    with contextlib.suppress(OSError, ValueError, ArithmeticError):  # a time that no disk can hold is no loss
        os.utime(target, (member.mtime, member.mtime))
    return True


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
