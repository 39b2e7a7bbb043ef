"""Folders of attempts: fresh, made on first use, removed afterwards.

Layout of one, under the ant's own folder::

    <random>/work     the working directory
    <random>/result   $FORMICARY_RESULT_DIR
    <random>/output   $FORMICARY_OUTPUT, a file that the task makes

The random name keeps two copies of an attempt apart, should a removal of the first have failed.
"""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


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
            work.mkdir(parents=True)
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

    def remove(self) -> None:
        """Removes all of it, also what the task made unwritable. Blocks; safe twice and before ``path``."""
        if self.is_made:
            remove_tree(Path(self.root))
            self.is_made = False


class Folders:
    """The folders of one ant."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._prefix = f"{base}/{os.urandom(4).hex()}-"
        self._count = 0

    def open(self) -> None:
        """Removes what dead ants of this id left, and makes the base. Blocks; call it under the warden's lock only."""
        if self._base.exists():
            remove_tree(self._base)
        self._base.mkdir(parents=True, exist_ok=True, mode=0o700)

    def fresh(self) -> AttemptFolder:
        """Returns a folder that no other attempt has."""
        self._count += 1
        return AttemptFolder(f"{self._prefix}{self._count}")


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
