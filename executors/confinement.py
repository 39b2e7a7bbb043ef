"""What a script is held to: an unprivileged user, limits, a mode mask; the executor of scripts asks, this decides.

Limits that a control group keeps are kept by that, for the script as a whole. The others are set on its processes.
"""

import asyncio
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from executors.accounts import Account, check_account, find_account
from executors.base import Attempt
from executors.cgroups import MEMORY, PIDS, Cgroups, Group
from executors.errors import ExecutorError, SpecRefusedError, StartFailedError
from executors.limits import bounded, limit_process
from executors.options import ExecutorOptions
from executors.specs import Limits

#: Others may pass through, where there are others: the names inside are not theirs to see.
_PASSABLE_MODE, _CLOSED_MODE = 0o710, 0o700
#: What Linux takes of one variable, with its name (MAX_ARG_STRLEN).
_LONGEST_VALUE_BYTES = 128 * 1024 - 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Confinement:
    """What one attempt is held to."""

    def __init__(self, limits: Limits, account: Account | None, umask: int, cgroups: Cgroups) -> None:
        self.limits = limits
        self.umask = umask
        self.prefix = () if account is None else account.prefix()
        self._account = account
        self._cgroups = cgroups
        self._group: Group | None = None

    @property
    def counts_oom_kills(self) -> bool:
        """Whether kills for want of memory are counted for this attempt alone."""
        return self._group is not None and self.limits.memory_bytes is not None and MEMORY in self._cgroups.kept

    @property
    def gives_folder(self) -> bool:
        """Whether the attempt's folder changes hands, which takes a while where much is in it."""
        return self._account is not None

    def oom_kills(self) -> int:
        """Returns how many processes of this attempt the kernel killed for want of memory."""
        return 0 if self._group is None else self._group.oom_kills()

    def open(self, attempt: Attempt, private: Path) -> Path:
        """Makes the folder of scripts, the temporary one inside, which it returns, and the group. Blocks.

        The script's user owns the latter only: what root writes beside it cannot be led elsewhere by a link.

        Raises:
            StartFailedError: what could not be made.
        """
        temporary = private / "tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True, mode=_CLOSED_MODE)
            private.chmod(_CLOSED_MODE)
            if self._account is not None:
                self._give(attempt, private, temporary)
            self._group = self._cgroups.make(self.limits)
        except OSError as exc:
            raise StartFailedError(f"cannot prepare the attempt: {exc.strerror} ({exc.filename})") from exc
        return temporary

    def show(self, script: Path) -> None:
        """Lets the user read a script. Blocks."""
        if self._account is not None:
            os.chown(script, -1, self._account.gid)
            script.chmod(0o640)

    def write_environment(self, file: Path, environment: Mapping[str, str]) -> Path | None:
        """Writes the variables of a script for its user to read; returns None where it is started with them. Blocks.

        Raises:
            SpecRefusedError: no shell can export a variable, or no program be given it.
            StartFailedError: the file cannot be written.
        """
        if self._account is None:
            return None
        for name, value in environment.items():
            if not _NAME.fullmatch(name):
                raise SpecRefusedError(f"environment: {name!r} is no name of a variable; use letters, digits and _")
            if len(os.fsencode(value)) + len(name) >= _LONGEST_VALUE_BYTES:
                raise SpecRefusedError(f"environment.{name}: longer than the system allows; put it into a file")
        try:
            lines = [f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()]
            file.touch(0o600)
            file.write_bytes(os.fsencode("".join(lines)))
            os.chown(file, self._account.uid, self._account.gid)  # others of the group must not read secrets
            file.chmod(0o400)
        except OSError as exc:
            raise StartFailedError(f"cannot write the environment: {exc.strerror} ({file})") from exc
        return file

    def hold(self, pid: int) -> None:
        """Puts a process under the limits before it runs anything.

        Raises:
            StartFailedError: the kernel refuses.
        """
        kept = self._cgroups.kept if self._group is not None else frozenset()
        try:
            limit_process(pid, _without(self.limits, kept))
            if self._group is not None:
                self._group.add(pid)
        except OSError as exc:
            raise StartFailedError(f"cannot put the script under its limits: {exc.strerror}") from exc

    async def end(self) -> None:
        """Kills what is left in the group, also what no mark or process group leads to."""
        if self._group is not None:
            await asyncio.to_thread(self._group.end)

    async def release(self, attempt: Attempt) -> None:
        """Takes the folder back from the user, when nothing of the attempt runs any more."""
        if self._account is not None:
            await asyncio.to_thread(attempt.folder.take_back)

    def close(self) -> None:
        """Removes the group and what is in it. Blocks; safe twice."""
        if self._group is not None:
            self._group.remove()
            self._group = None

    def _give(self, attempt: Attempt, private: Path, temporary: Path) -> None:
        assert self._account is not None
        attempt.folder.give_to(self._account.uid, self._account.gid)
        os.chown(temporary, self._account.uid, self._account.gid)
        os.chown(private, -1, self._account.gid)
        private.chmod(_PASSABLE_MODE)


class Warder:
    """Holds the scripts of one ant to its settings; before ``check`` they have neither user nor groups."""

    def __init__(self, options: ExecutorOptions) -> None:
        self._options = options
        self._account: Account | None = None
        self._cgroups = Cgroups({})

    async def check(self) -> None:
        """Finds the user and the control groups.

        Raises:
            ExecutorError: the ant's settings cannot be kept here; says how they could.
        """
        if self._options.shell_user is not None:
            self._account = find_account(self._options.shell_user)
            await check_account(self._account, self._options.shell, self._options.shell_folder)
        self._cgroups = await asyncio.to_thread(Cgroups.find)
        try:
            self._refuse_unkept(self._options.shell_limits)
        except SpecRefusedError as exc:
            raise ExecutorError(str(exc)) from exc

    def confine(self, asked: Limits | None) -> Confinement:
        """Returns what an attempt is held to.

        Raises:
            SpecRefusedError: it asks for more than this ant allows, or for a limit that nothing here keeps.
        """
        limits = bounded(asked, self._options.shell_limits)
        self._refuse_unkept(limits)
        return Confinement(limits, self._account, self._options.shell_umask, self._cgroups)

    def _refuse_unkept(self, limits: Limits) -> None:
        """Root is exempt from the limit of a user's processes: a fork bomb would not be noticed to be one."""
        if limits.processes is None or PIDS in self._cgroups.kept:
            return
        if self._account is None and os.geteuid() == 0:
            raise SpecRefusedError(
                "limits.processes: nothing keeps it for root where control groups cannot be made; give the ant a user"
                " for its scripts (FORMICARY_SHELL_USER)"
            )


def _without(limits: Limits, kept: frozenset[str]) -> Limits:
    return Limits(
        cpu_time_s=limits.cpu_time_s,
        memory_bytes=None if MEMORY in kept else limits.memory_bytes,
        open_files=limits.open_files,
        processes=None if PIDS in kept else limits.processes,
    )
