"""Processes that left their group: found by the environment they inherited from their attempt.

Reading ``/proc`` costs some milliseconds on a busy machine, so one scan serves all attempts that end meanwhile. A
process that cleared its environment *and* left its session is out of reach; containers are the answer to those.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

#: The variables that name an attempt.
MARKS = ("FORMICARY_JOB_ID", "FORMICARY_TASK_TYPE", "FORMICARY_ATTEMPT")
_PREFIXES = tuple(f"{name}=".encode() for name in MARKS)
_PROC = Path("/proc")
_LOOK_S = 0.02
_PATIENCE_AFTER_KILL_S = 1.0
#: A stray may fork while it is being killed, so the hunt is repeated, but not for ever.
_ROUNDS = 5

Marks = tuple[bytes, ...]


def marks_of(environment: Mapping[str, str]) -> Marks | None:
    """Returns what identifies the attempt's processes, or None where the environment lacks it."""
    if any(name not in environment for name in MARKS):
        return None
    return tuple(prefix + os.fsencode(environment[name]) for name, prefix in zip(MARKS, _PREFIXES, strict=True))


class StrayHunter:
    """Finds and ends what escaped from its process group."""

    def __init__(self) -> None:
        self._current: asyncio.Task[dict[Marks, list[int]]] | None = None
        self._next: asyncio.Task[dict[Marks, list[int]]] | None = None

    async def ask(self, marks: Marks, group: int) -> None:
        """Sends TERM to every process of the attempt that is not in ``group``."""
        pids = (await self._scan()).get(marks, [])
        _signal([pid for pid in pids if _group_and_state(str(pid))[0] != group], signal.SIGTERM)

    async def end_all(self, marks: Marks, grace_s: float) -> None:
        """Ends every process of the attempt: TERM, KILL after the grace."""
        for number in range(_ROUNDS):
            pids = (await self._scan()).get(marks)
            if not pids:
                return
            if number == 0 and grace_s > 0:
                _signal(pids, signal.SIGTERM)
                await _wait_gone(pids, grace_s)
            _signal([pid for pid in pids if _is_alive(pid)], signal.SIGKILL)
            await _wait_gone(pids, _PATIENCE_AFTER_KILL_S)

    async def _scan(self) -> dict[Marks, list[int]]:
        """Returns the result of a scan that began after this call; callers share it."""
        if self._next is None:
            self._next = asyncio.create_task(self._scan_after(self._current))
        return await asyncio.shield(self._next)

    async def _scan_after(self, former: asyncio.Task[dict[Marks, list[int]]] | None) -> dict[Marks, list[int]]:
        if former is not None:
            await asyncio.wait([former])
        self._current, self._next = self._next, None
        return await asyncio.to_thread(_scan_proc)


def is_group_dead(group: int) -> bool:
    """Returns whether only zombies are left of a process group: how soon they go is up to the system's init."""
    return not any(_group_and_state(name) == (group, True) for name in _process_names())


def _scan_proc() -> dict[Marks, list[int]]:
    found: dict[Marks, list[int]] = {}
    for name in _process_names():
        if (marks := _read_marks(name)) is not None:
            found.setdefault(marks, []).append(int(name))
    return found


def _process_names() -> list[str]:
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - thousands of Path objects cost more than the scan
    except OSError:
        return []  # no /proc: strays cannot be found on this system
    return [name for name in names if name.isdigit()]


def _group_and_state(pid: str) -> tuple[int, bool]:
    """Returns the group of a process and whether it is more than a zombie; zeros where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0, False
    state, _parent, group = stat[stat.rfind(b")") + 2 :].split(b" ", 3)[:3]
    return int(group), state not in {b"Z", b"X"}


def _read_marks(pid: str) -> Marks | None:
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY)
    except OSError:
        return None
    try:
        environment = _read_all(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    if _PREFIXES[0] not in environment or int(pid) == os.getpid():
        return None
    entries = environment.split(b"\0")
    marks = [next((entry for entry in entries if entry.startswith(prefix)), None) for prefix in _PREFIXES]
    return tuple(mark for mark in marks if mark is not None)


def _read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 65536):
        pieces.append(piece)
    return b"".join(pieces)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


async def _wait_gone(pids: list[int], limit_s: float) -> None:
    deadline_s = asyncio.get_running_loop().time() + limit_s
    while any(_is_alive(pid) for pid in pids) and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)


def _is_alive(pid: int) -> bool:
    """Returns whether the process runs; a zombie does not, and one that is ours is reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return _group_and_state(str(pid))[1]
