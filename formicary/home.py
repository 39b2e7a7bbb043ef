"""The home folder: held by at most one process, which says in ``lock`` who it is."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from formicary.errors import HomeHeldError, InvalidInputError

#: How long to wait for a new holder to write who it is, in seconds.
_INTRODUCTION_S = 1.0


#: Closed to others; for root it can be passed through, because the embedded server runs as somebody else.
_HOME_MODE = 0o711 if os.geteuid() == 0 else 0o700


class HomeLock:
    """The exclusive hold of a home folder, by an advisory lock that ends with the process.

    The file ``lock`` holds JSON about the holder: ``pid``, ``mode`` (``up`` or ``run``) and ``listen``, the address
    of its API ("" where it has none).
    """

    def __init__(self, home: Path, mode: str) -> None:
        self.home = home
        self._mode = mode
        self._file: int | None = None

    def acquire(self) -> None:
        """Takes the lock; creates the folder, for its owner only.

        Raises:
            HomeHeldError: another process has it; ``holder`` is what that process wrote.
            InvalidInputError: the folder cannot be made or written.
        """
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise HomeHeldError(str(self.home), read_holder(self.home)) from error
        self._file = descriptor
        self.introduce("")

    def introduce(self, listen: str) -> None:
        """Writes who holds the home, for those who find it held."""
        if self._file is None:
            return
        text = json.dumps({"pid": str(os.getpid()), "mode": self._mode, "listen": listen})
        os.pwrite(self._file, text.encode(), 0)
        os.ftruncate(self._file, len(text.encode()))

    def release(self) -> None:
        """Gives the lock back. Safe twice and before ``acquire``."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _open(self) -> int:
        with _usable(self.home):
            self.home.mkdir(mode=_HOME_MODE, parents=True, exist_ok=True)
            return os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def prove_writable(home: Path) -> None:
    """Makes the folder where there is none, and writes to it; leaves nothing else.

    Raises:
        InvalidInputError: that does not work.
    """
    with _usable(home):
        home.mkdir(mode=_HOME_MODE, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass


@contextmanager
def _usable(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_taken = isinstance(error, FileExistsError | IsADirectoryError)
        reason = f"{error.filename} is in the way" if is_taken else error.strerror
        message = f"FORMICARY_HOME: {home} cannot be used ({reason}); choose a folder you can write to"
        raise InvalidInputError(message) from error


def read_holder(home: Path) -> dict[str, str]:
    """Returns what the holder of ``home`` wrote about itself; empty where it wrote nothing in a second."""
    give_up_at = time.monotonic() + _INTRODUCTION_S
    while True:
        try:
            holder = json.loads((home / "lock").read_text())
            return {str(key): str(value) for key, value in holder.items()}
        except (OSError, ValueError, AttributeError):
            if time.monotonic() > give_up_at:
                return {}
        time.sleep(0.02)
