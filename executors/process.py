"""Child processes of an ant: a process group each, started behind a gate, ended as a whole.

Rules:

1. A child leads a session and group of its own; signals go to the group, never to one process.
2. A gated child runs nothing until its gate opens. The gate is its standard input, so it is never inherited by what
   it runs, and the death of the ant (end of file) makes it exit.
3. The end is watched through a pidfd, in the loop: no thread per child, no signal handler, the same under uvloop.
4. TERM is sent once; KILL follows at the earliest deadline that anybody set.
"""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from executors.errors import SpecRefusedError, StartFailedError
from executors.strays import is_group_dead

#: Waits for the gate, then becomes the script; end of file means that the ant is gone.
_LAUNCHER = 'read -r go || exit 125; exec "$0" -e "$1" </dev/null'
#: The same where the process has to become another user first: until then it is ours, to be put under limits, and has
#: no variable of the task's, which could make the loader or the shell of a root process run what the task likes.
_GATE = 'read -r go || exit 125; exec "$@"'
_ENTER = '. "$0" && exec "$1" -e "$2" </dev/null'
#: How often a group is looked at that was told to end.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.002, 0.05
#: How long after KILL a group may stay (it may be uninterruptible) before it is given up.
_PATIENCE_AFTER_KILL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start, and where. ``umask`` -1 leaves the ant's own.

    ``prefix``: words that make the rest run as another user, who reads its environment from ``environment_file``.
    """

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    umask: int = -1
    prefix: Sequence[str] = ()
    environment_file: Path | None = None

    def launching(self, script: Path, shell: Path) -> tuple[list[str], dict[str, str]]:
        """Returns words and environment of a process that waits at its gate and then becomes the script."""
        if not self.prefix:
            return [*self.argv, "-c", _LAUNCHER, str(shell), str(script)], dict(self.environment)
        entering = [str(shell), "-c", _ENTER, str(self.environment_file), str(shell), str(script)]
        return [*self.argv, "-c", _GATE, str(shell), *self.prefix, *entering], {}


class Child:
    """A process that leads its own group. Belongs to one loop."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._exit: asyncio.Task[int] = asyncio.create_task(_watch(process))
        self._kill_timer: asyncio.TimerHandle | None = None
        self._kill_at_s = float("inf")
        self.is_told_to_end = False

    @property
    def has_exited(self) -> bool:
        """Whether the leader has ended, as far as this loop has noticed."""
        return self._exit.done()

    async def exited(self) -> int:
        """Returns the exit code, or minus the signal, when the leader has ended; cancelling it changes nothing."""
        return await asyncio.shield(self._exit)

    def end(self, grace_s: float) -> None:
        """Sends TERM to the group, once, and KILL after the shortest grace that anybody gave."""
        if not self.is_told_to_end:
            self.is_told_to_end = True
            self.signal(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
        loop = asyncio.get_running_loop()
        kill_at_s = loop.time() + grace_s
        if kill_at_s >= self._kill_at_s:
            return
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_at_s = kill_at_s
        self._kill_timer = loop.call_at(kill_at_s, self.signal, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole group; one that is gone is fine."""
        if self.is_group_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def is_group_alive(self) -> bool:
        """Returns whether any process of the group is left.

        The number cannot belong to others: it is taken as long as the group has a member, and the leader is reaped
        in this loop only.
        """
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def group_gone(self, grace_s: float) -> bool:
        """Ends what outlived the leader; returns whether the group is gone."""
        if self.is_group_alive():
            self.end(grace_s)
            is_gone = await self._look_until_gone()
        else:
            is_gone = True
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        return is_gone

    async def _look_until_gone(self) -> bool:
        loop, pause_s = asyncio.get_running_loop(), _FIRST_LOOK_S
        while loop.time() < self._kill_at_s + _PATIENCE_AFTER_KILL_S:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_LOOK_S)
            _reap_adopted(self.pid)
            if not self.is_group_alive() or await asyncio.to_thread(is_group_dead, self.pid):
                return True
        return False


async def spawn_gated(command: Command, script: Path, shell: Path) -> "tuple[Child, Gate, int, int]":
    """Starts ``shell -e script`` behind a gate; returns it with the read ends of its stdout and stderr.

    Raises:
        SpecRefusedError: the environment is larger than the system allows.
        StartFailedError: no process could be made.
    """
    gate_read, gate_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    theirs, ours = (gate_read, out_write, err_write), (gate_write, out_read, err_read)
    argv, environment = command.launching(script, shell)
    try:
        process = _popen(argv, environment, command, theirs)
    except BaseException:
        _close_all(ours)
        raise
    finally:
        _close_all(theirs)
    return Child(process), Gate(gate_write), out_read, err_read


class Gate:
    """What holds a child back. Closing it unopened lets the child exit without running anything."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def open(self) -> None:
        """Lets the child run; one that died meanwhile is noticed by its exit."""
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, b"\n")
        self.close()

    def close(self) -> None:
        """Closes the pipe. Safe twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _popen(
    argv: Sequence[str], environment: Mapping[str, str], command: Command, fds: tuple[int, int, int]
) -> subprocess.Popen[bytes]:
    try:
        # A new session and no preexec_fn: CPython uses vfork, so a large ant spawns as fast as a small one.
        return subprocess.Popen(
            argv,
            stdin=fds[0],
            stdout=fds[1],
            stderr=fds[2],
            cwd=command.cwd,
            env=environment,
            start_new_session=True,
            umask=command.umask,
        )
    except OSError as exc:
        if exc.errno == errno.E2BIG:
            raise SpecRefusedError("environment: larger than the system allows; put the values into a file") from exc
        raise StartFailedError(f"cannot start a process: {exc.strerror} ({argv[0]} in {command.cwd})") from exc


async def _watch(process: subprocess.Popen[bytes]) -> int:
    """Returns the code of the process, reaped, without blocking the loop."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        return await _poll(process)
    loop = asyncio.get_running_loop()
    has_ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _resolve, has_ended)
    try:
        await has_ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return process.wait()


async def _poll(process: subprocess.Popen[bytes]) -> int:
    """Does the same where the system has no pidfds."""
    while (code := process.poll()) is None:  # noqa: ASYNC110 - the kernel sets no Event
        await asyncio.sleep(_LAST_LOOK_S)
    return code


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _reap_adopted(group: int) -> None:
    """Reaps members of the group that became children of this process, as they do where it is PID 1 of a container."""
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
            pass


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
