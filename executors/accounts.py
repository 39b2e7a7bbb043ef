"""The unprivileged user of scripts: found by name or number, and how a process becomes that user for good.

``setpriv`` of util-linux does it: user, group and supplementary groups changed, every capability given up, and
``no_new_privs`` set, so that no set-user-ID program gives anything back. ``subprocess`` could change the user by itself
but would then fork the whole ant instead of using vfork, and knows neither of the last two.
"""

import asyncio
import grp
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from executors.errors import ExecutorError

_SETPRIV = "setpriv"
#: Says that it runs, and waits; or ends with this code where it cannot enter the folder.
_TRIAL = 'cd "$0" || exit 9; echo ready; read -r go || :'
_NO_ENTRY = 9
_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine with its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def prefix(self) -> tuple[str, ...]:
        """Returns the words before a command that make it run as this user."""
        groups = ("--groups", ",".join(map(str, self.groups))) if self.groups else ("--clear-groups",)
        return (
            shutil.which(_SETPRIV) or _SETPRIV,
            *("--reuid", str(self.uid), "--regid", str(self.gid), *groups),
            *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
        )


def find_account(text: str) -> Account:
    """Returns the account of ``user``, ``user:group``, or numbers of both; its groups are those of a login.

    Raises:
        ExecutorError: there is none, or it is root.
    """
    user, _, group = text.partition(":")
    name, uid, own_gid = _find_user(user)
    gid = _find_group(group) if group else own_gid
    if uid == 0:
        raise ExecutorError(f"the user of scripts is {text}, which is root: name an unprivileged one")
    if gid is None:
        raise ExecutorError(f"the user of scripts is {text}, which has no entry: write it as UID:GID")
    groups = () if own_gid is None else tuple(sorted({*os.getgrouplist(name, gid)} - {gid}))
    return Account(name, uid, gid, groups)


def _find_user(text: str) -> tuple[str, int, int | None]:
    try:
        entry = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text.isdecimal() and int(text) < 2**32 - 1:
            return text, int(text), None
        raise ExecutorError(f"the user of scripts, {text}, does not exist on this machine") from None
    return entry.pw_name, entry.pw_uid, entry.pw_gid


def _find_group(text: str) -> int:
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ExecutorError(f"the group of scripts, {text}, does not exist on this machine") from None


async def check_account(account: Account, shell: Path, folder: Path | None) -> None:
    """Proves that scripts can run as the account, can reach ``folder``, and can be found again to be ended.

    Raises:
        ExecutorError: says what is missing and how to get it.
    """
    if shutil.which(_SETPRIV) is None:
        raise ExecutorError(f"scripts as {account.name} need the program {_SETPRIV}: install util-linux")
    target = "/" if folder is None or not os.path.isdir(folder) else str(folder)  # noqa: ASYNC240, PTH112 - once
    trial = await asyncio.create_subprocess_exec(
        *account.prefix(),
        *(str(shell), "-c", _TRIAL, target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"FORMICARY_TRIAL": "1"},
    )
    assert trial.stdout is not None
    async with asyncio.timeout(_LIMIT_S):
        is_ready = await trial.stdout.readline() == b"ready\n"
        can_be_seen = is_ready and _can_be_seen(trial.pid)
        _, said = await trial.communicate(b"")
    if trial.returncode == _NO_ENTRY:
        raise ExecutorError(
            f"{account.name} cannot enter {target}: set FORMICARY_HOME to a folder below those that it can enter, such"
            " as /var/lib/formicary"
        )
    if not is_ready:
        reason = said.decode(errors="replace").strip() or f"exit code {trial.returncode}"
        raise ExecutorError(f"cannot run scripts as {account.name} ({reason}): start the ant as root")
    if not can_be_seen:
        raise ExecutorError(
            f"cannot look after processes of {account.name}: give the ant the capability SYS_PTRACE, by which it and"
            " its warden find what a script left behind"
        )


def _can_be_seen(pid: int) -> bool:
    try:
        return b"FORMICARY_TRIAL" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
