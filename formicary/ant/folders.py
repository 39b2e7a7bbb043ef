"""Folders of attempts: fresh, made on first use, removed afterwards.

Layout of one, under the ant's own folder::

    <random>/work     the working directory
    <random>/result   $FORMICARY_RESULT_DIR
    <random>/output   $FORMICARY_OUTPUT, a file that the task makes

The random name keeps two copies of an attempt apart, should a removal of the first have failed.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import structlog

from formicary.errors import DataError

log = structlog.get_logger(__name__)


#: How often a folder is looked through until nothing in it belongs to somebody else.
_ROUNDS = 5


class AttemptFolder:
    """The folder of one attempt; nothing exists on disk before ``path`` is called."""

    __slots__ = ("is_made", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self.is_made = False

    def path(self) -> Path:
        """Returns the working directory, which exists from now on."""
        work = Path(self.root, "work")
        if not self.is_made:
            Path(self.root).mkdir(mode=0o700, parents=True)
            work.mkdir()
            Path(self.root, "result").mkdir()
            self.is_made = True
        return work

    @property
    def result_dir(self) -> Path:
        """Returns the folder whose content is the attempt's result."""
        return Path(self.root, "result")

    @property
    def output_file(self) -> Path:
        """Returns the file of outputs."""
        return Path(self.root, "output")

    def give_to(self, uid: int, gid: int) -> None:
        """Gives directory, result folder and file of outputs, which exists from now on, to a user. Blocks.

        What holds the three stays ours, so that the user can put nothing in their places. It is opened to the user
        last: nobody can exchange a file for a link while all are given away.

        Raises:
            OSError: this process may not give files away.
        """
        work = self.path()
        self.output_file.touch(mode=0o600)
        for path in (work, self.result_dir):
            _chown_tree(path, uid, gid)
        os.chown(self.output_file, uid, gid)
        os.chown(self.root, -1, gid)
        Path(self.root).chmod(0o710)

    def take_back(self) -> None:
        """Closes the folder to the user it was given to, and owns all of it again. Blocks; safe twice.

        Another process of that user may still be inside, exchanging files for links while we read them: hence until
        nothing is left that is not ours.

        Raises:
            DataError: the folder is being changed faster than it can be taken.
        """
        Path(self.root).chmod(0o700)
        for path in (Path(self.root, "work"), self.result_dir):
            if not any(_chown_tree(path, os.geteuid(), os.getegid()) == 0 for _ in range(_ROUNDS)):
                raise DataError(str(path), "is being changed by another process of the same user")

    def remove(self) -> None:
        """Removes all of it, also what the task made unwritable. Blocks; safe twice and before ``path``."""
        if self.is_made:
            remove_tree(Path(self.root))
            self.is_made = False


class Folders:
    """The folders of one ant.

    Args:
        passable_from: for attempts that run as another user: the folders from here down to the attempts' can be passed
            through, though not looked into.
    """

    def __init__(self, base: Path, passable_from: Path | None = None) -> None:
        self._base = base
        self._passable_from = passable_from
        self._prefix = f"{base}/{os.urandom(4).hex()}-"
        self._count = 0

    def open(self) -> None:
        """Removes what dead ants of this id left, and makes the base. Blocks; call it under the warden's lock only."""
        if self._base.exists():
            remove_tree(self._base)
        self._base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._passable_from is not None:
            for folder in (self._base, *self._base.parents):
                folder.chmod(folder.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
                if folder == self._passable_from:
                    break

    def fresh(self) -> AttemptFolder:
        """Returns a folder that no other attempt has."""
        self._count += 1
        return AttemptFolder(f"{self._prefix}{self._count}")


def _chown_tree(root: Path, uid: int, gid: int) -> int:
    """Gives a folder and all in it to a user, following no link; returns how many changed hands."""
    count = 0
    for _, folders, files, descriptor in os.fwalk(root):
        if os.fstat(descriptor).st_uid != uid:
            os.fchown(descriptor, uid, gid)
            count += 1
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid != uid:
                    os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
                    count += 1
    return count


def remove_tree(root: Path) -> None:
    """Removes a folder; what cannot be removed is logged and left. Never follows a symlink."""
    failed: list[str] = []

    def retry(function: Callable[..., object], path: str, _: object) -> None:
        try:
            Path(path).parent.chmod(stat.S_IRWXU)
            if function is os.unlink or function is os.rmdir:
                function(path)
            else:
                Path(path).chmod(stat.S_IRWXU)
                shutil.rmtree(path)
        except OSError as exc:
            failed.append(f"{path}: {exc.strerror}")

    shutil.rmtree(root, onerror=retry)
    if failed:
        log.warning("folder_not_removed", folder=str(root), failed=failed[:5])
