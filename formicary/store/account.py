"""The account that runs the embedded server: the caller's own, or for root an unprivileged one."""

import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from formicary.store.errors import EmbeddedPostgresError

DAC_OVERRIDE = 1
DAC_READ_SEARCH = 2
SETPCAP = 8
#: Neither the user nor the group is changed.
UNCHANGED = -1


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs the server; ``capability`` (see ``launcher.py``) lets it pass folders closed to it, -1: none."""

    uid: int = UNCHANGED
    gid: int = UNCHANGED
    capability: int = UNCHANGED

    @property
    def is_other(self) -> bool:
        """Whether the server runs as another user than this process."""
        return self.uid != UNCHANGED

    def own(self, path: Path) -> None:
        """Gives ``path`` to the account and closes it to everyone else."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)
        path.chmod(0o700)


def choose_account(data: Path, must_pass: Sequence[Path]) -> Account:
    """Returns the account for a data folder: root must not run Postgres, so for root its present owner or ``nobody``.

    Args:
        data: The data folder, which may not exist yet.
        must_pass: Folders that the server has to reach.

    Raises:
        EmbeddedPostgresError: this process is root and there is no way to run as somebody else.
    """
    if os.geteuid() != 0:
        return Account()
    entry = _unprivileged(data)
    closed = [path for path in must_pass if not _is_open_to(path, entry)]
    return Account(uid=entry.pw_uid, gid=entry.pw_gid, capability=_passing_capability(closed, entry.pw_name))


def _unprivileged(data: Path) -> pwd.struct_passwd:
    owner = data.stat().st_uid if data.exists() else 0
    if owner != 0:
        return pwd.getpwuid(owner)
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not others:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root and this machine has no other user; add one, or set FORMICARY_DATABASE_URL"
        )
    return others[-1]


def _is_open_to(path: Path, entry: pwd.struct_passwd) -> bool:
    return all(_may_search(folder, entry) for folder in path.resolve().parents)


def _may_search(folder: Path, entry: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == entry.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == entry.pw_gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _passing_capability(closed: Sequence[Path], user: str) -> int:
    if not closed:
        return UNCHANGED
    held = _permitted_capabilities()
    if held >> SETPCAP & 1:
        for capability in (DAC_READ_SEARCH, DAC_OVERRIDE):
            if held >> capability & 1:
                return capability
    raise EmbeddedPostgresError(
        f"Postgres refuses to run as root, and user {user} cannot reach {closed[0]}; choose a FORMICARY_HOME whose "
        "parent folders others may pass (mode o+x), run as another user, or set FORMICARY_DATABASE_URL"
    )


def _permitted_capabilities() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("CapPrm:"))
    return int(line.split()[1], 16)
