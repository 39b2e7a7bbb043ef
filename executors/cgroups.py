"""Control groups of scripts: their memory and processes bounded and counted as a whole, whoever started what.

Where a group for each attempt can be made:

- Version 2: below the ant's own group where that was delegated to it (systemd: ``Delegate=yes``), since nothing but
  the manager of a group may divide it. Groups that are divided hold no processes of their own, so what is in the ant's
  moves down into ``formicary-ant`` first. In the root of the hierarchy nothing need move.
- Version 1: below the ant's own group of each controller that is mounted so, where it may write there.

The ant's process id is part of the names: what dead ants left is removed by the next. Everything here blocks.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from executors.memory_limits import count_oom_kills
from executors.specs import Limits

#: The controllers that bound what a script uses.
MEMORY, PIDS = "memory", "pids"
_PREFIX = "formicary-"
_OWN_GROUP = f"{_PREFIX}ant"
#: By which a manager says that a group is its user's to divide (systemd.resource-control(5)).
_DELEGATED = ("user.delegate", "trusted.delegate")
_LOOK_S = 0.005
_PATIENCE_S = 1.0


class Group:
    """The groups of one attempt: one in version 2, one a controller in version 1."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def add(self, pid: int) -> None:
        """Moves a process into the group; what it starts is born there. One that is gone is fine."""
        for folder in set(self._folders.values()):
            with contextlib.suppress(ProcessLookupError):
                (folder / "cgroup.procs").write_text(f"{pid}\n")

    def oom_kills(self) -> int:
        """Returns how many processes of the group the kernel killed for want of memory."""
        memory = self._folders.get(MEMORY)
        if memory is None:
            return 0
        return count_oom_kills(memory / "memory.events") or count_oom_kills(memory / "memory.oom_control") or 0

    def end(self) -> None:
        """Kills what is left in the group, and returns when nothing is."""
        give_up_at = time.monotonic() + _PATIENCE_S
        for folder in set(self._folders.values()):
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1\n")
            while (pids := _members(folder)) and time.monotonic() < give_up_at:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(_LOOK_S)

    def remove(self) -> None:
        """Ends what is left and removes the group. Safe twice; what cannot be removed goes with the next ant."""
        self.end()
        for folder in set(self._folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()


class Cgroups:
    """Where this process may make groups. ``kept``: the controllers that bound there."""

    def __init__(self, parents: Mapping[str, Path]) -> None:
        self._parents = parents
        self.kept = frozenset(parents)
        self._count = 0

    @classmethod
    def find(cls) -> "Cgroups":
        """Returns what there is, perhaps nothing; removes the groups of dead ants."""
        parents = dict(_find_first_version())
        if unified := _own_folder("cgroup2", ""):
            parents.update(_find_second_version(unified))
        for parent in set(parents.values()):
            _sweep(parent)
        return cls(parents)

    def make(self, limits: Limits) -> Group | None:
        """Returns a group for one attempt; None where no limit needs it or no controller keeps it.

        Raises:
            OSError: the group cannot be made; nothing is left of it.
        """
        wanted = {MEMORY: limits.memory_bytes, PIDS: limits.processes}
        self._count += 1
        name = f"{_PREFIX}{os.getpid()}-{self._count}"
        folders = {
            controller: parent / name for controller, parent in self._parents.items() if wanted[controller] is not None
        }
        if not folders:
            return None
        group = Group(folders)
        try:
            for folder in set(folders.values()):
                folder.mkdir()
            _bound(folders, limits)
        except OSError:
            group.remove()
            raise
        return group


def _bound(folders: Mapping[str, Path], limits: Limits) -> None:
    if PIDS in folders:
        (folders[PIDS] / "pids.max").write_text(f"{limits.processes}\n")
    if MEMORY not in folders:
        return
    memory = folders[MEMORY]
    if (memory / "memory.max").exists():
        (memory / "memory.max").write_text(f"{limits.memory_bytes}\n")
        _write_where_known(memory / "memory.swap.max", "0")
        return
    (memory / "memory.limit_in_bytes").write_text(f"{limits.memory_bytes}\n")
    _write_where_known(memory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes))


def _write_where_known(file: Path, text: str) -> None:
    """Writes to a file that kernels without swap do not have; it must not be made."""
    with contextlib.suppress(OSError), file.open("r+") as opened:
        opened.write(text)


def _find_first_version() -> Iterator[tuple[str, Path]]:
    for controller in (MEMORY, PIDS):
        folder = _own_folder("cgroup", controller)
        if folder is not None and os.access(folder, os.W_OK):
            yield controller, folder


def _find_second_version(own: Path) -> dict[str, Path]:
    """Returns the group that may be divided, by the controllers that it gives to its parts."""
    if not (own / "cgroup.type").exists():
        divided = own  # the root of the hierarchy
    elif _is_delegated(own):
        divided = own
    elif _is_delegated(own.parent) and (own.parent / "cgroup.subtree_control").exists():
        divided = own.parent
    else:
        return {}
    try:
        if divided == own and (own / "cgroup.type").exists():
            _move_down(own)
        present = (divided / "cgroup.controllers").read_text().split()
        kept = [controller for controller in (MEMORY, PIDS) if controller in present]
        if kept:
            (divided / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in kept))
    except OSError:
        return {}
    return dict.fromkeys(kept, divided)


def _is_delegated(folder: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return os.access(folder / "cgroup.procs", os.W_OK)
    return False


def _move_down(own: Path) -> None:
    leaf = own / _OWN_GROUP
    leaf.mkdir(exist_ok=True)
    for pid in _members(own):
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(f"{pid}\n")


def _own_folder(kind: str, controller: str) -> Path | None:
    """Returns the folder of this process's group in the hierarchy of a controller ("": version 2), as mounted here."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    paths = [path for _, names, path in (line.split(":", 2) for line in groups) if controller in names.split(",")]
    for line in mounts:
        place, _, details = line.partition(" - ")
        root, target = place.split()[3:5]
        found_kind, _, options = details.split(" ", 2)
        if not paths or found_kind != kind or (controller and controller not in options.split(",")):
            continue
        with contextlib.suppress(ValueError):
            folder = Path(target) / Path(paths[0]).relative_to(root)
            return folder if (folder / "cgroup.procs").exists() else None
    return None


def _members(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):  # one that holds processes stays: their ant may be of another namespace
                folder.rmdir()
