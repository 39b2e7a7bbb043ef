"""Tar archives between the attempt's folder and a container. Blocking; call it in a thread.

What comes out of a container is not trusted: only folders and files are taken, and nothing outside of the target.
"""

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

_COPY_BYTES: Final = 1024 * 1024


def pack(folder: Path, file: IO[bytes]) -> int:
    """Writes all of a folder to ``file`` and returns the size of the archive."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, ".", filter=_anonymous)
    size = file.tell()
    file.seek(0)
    return size


def unpack(file: IO[bytes], folder: Path) -> None:
    """Unpacks folders and files below ``folder``; links to files of the same archive become copies of their content.

    Raises:
        tarfile.TarError: it is no archive, or half of one.
        OSError: the disk is full, or two entries want the same path.
    """
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member, path in _wanted(archive):
            target = folder / path
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            source = archive.extractfile(member)
            if source is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)
            target.chmod(0o700 if member.mode & 0o111 else 0o600)


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


def _wanted(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    for member in archive:
        path = PurePosixPath(member.name)
        is_inside = not path.is_absolute() and ".." not in path.parts
        if is_inside and (member.isdir() or member.isreg() or member.islnk()):
            yield member, path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
