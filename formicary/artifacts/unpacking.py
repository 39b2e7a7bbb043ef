"""Files that are written below a folder, by relative paths that nobody has to trust."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Permissions of folders that an archive does not name, but whose files it has.
_FOLDER_MODE: Final = 0o755
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Open(NamedTuple):
    """A folder on the way to where something is being written; ``is_ours``: it was made here."""

    name: str
    descriptor: int
    is_ours: bool


class Tree:
    """Adds to a folder, never through a symlink, never replacing anything unless told to.

    Folders get their permissions in ``finish``, so that read-only ones can be filled; ``undo`` removes what was made.
    """

    def __init__(self, root: Path, *, replaces: bool = False) -> None:
        self._root = root
        self._replaces = replaces
        self._way: list[_Open] = []
        self._made: list[str] = []
        self._modes: dict[str, int] = {}

    def __enter__(self) -> "Tree":
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._way = [_Open("", descriptor, is_ours=False)]
        return self

    def __exit__(self, *exc: object) -> None:
        while self._way:
            os.close(self._way.pop().descriptor)

    def add_folder(self, path: str, mode: int) -> None:
        """Makes a folder, unless there is one."""
        parts = _checked(path)
        if self._enter(parts).is_ours:
            self._modes["/".join(parts)] = mode

    def add_link(self, path: str, target: str) -> None:
        """Makes a symlink, unless there is something."""
        *folders, name = _checked(path)
        folder = self._enter(folders)
        self._make_way(name, folder)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, name, dir_fd=folder.descriptor)
            self._note(path, folder)

    def add_file(self, path: str, mode: int, modified_at_s: float, chunks: Iterator[bytes]) -> None:
        """Writes a file, unless there is something; with a time of 0 it is as old as it is."""
        *folders, name = _checked(path)
        folder = self._enter(folders)
        self._make_way(name, folder)
        try:
            descriptor = os.open(name, _FILE_FLAGS, 0o600, dir_fd=folder.descriptor)
        except FileExistsError:
            return
        self._note(path, folder)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(descriptor, mode)
            if modified_at_s:
                os.utime(descriptor, (modified_at_s, modified_at_s))

    def _make_way(self, name: str, folder: _Open) -> None:
        if self._replaces:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder.descriptor)

    def finish(self) -> None:
        """Gives the folders that were made their permissions, inner ones first."""
        for path, mode in reversed(self._modes.items()):
            *folders, name = _checked(path)
            os.chmod(name, mode, dir_fd=self._enter(folders).descriptor)

    def undo(self) -> None:
        """Removes what was made, as far as that can be."""
        for path in reversed(self._made):
            target = self._root / path
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    target.unlink()

    def _enter(self, parts: list[str]) -> _Open:
        """Returns a folder, made where it is missing; the way to it stays open for what comes next."""
        way = self._way
        common = 0
        while common < min(len(parts), len(way) - 1) and parts[common] == way[common + 1].name:
            common += 1
        while len(way) - 1 > common:
            os.close(way.pop().descriptor)
        for depth in range(common, len(parts)):
            self._descend(parts[: depth + 1])
        return way[-1]

    def _descend(self, parts: list[str]) -> None:
        parent, name = self._way[-1], parts[-1]
        is_ours = True
        try:
            os.mkdir(name, stat.S_IRWXU, dir_fd=parent.descriptor)
        except FileExistsError:
            is_ours = False
        else:
            self._note("/".join(parts), parent)
            self._modes["/".join(parts)] = _FOLDER_MODE
        self._way.append(_Open(name, os.open(name, _FOLDER_FLAGS, dir_fd=parent.descriptor), is_ours))

    def _note(self, path: str, parent: _Open) -> None:
        # What lies in a folder that was made here is removed with it.
        if not parent.is_ours:
            self._made.append(path)


def _checked(path: str) -> list[str]:
    """Returns the parts of a relative path.

    Raises:
        ValueError: it is absolute, or climbs.
    """
    parts = path.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise ValueError(f"{path!r} is no path below the folder")
    return parts
