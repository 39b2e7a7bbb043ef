"""What a script may use: what its task asks for, bounded by what its ant allows; and the limits of single processes."""

import contextlib
import math
import resource

import msgspec

from executors.errors import SpecRefusedError
from executors.specs import Limits

#: From SIGXCPU to SIGKILL for a process that ignores the former, in seconds of processor time.
_CPU_GRACE_S = 2
_WORDS = {"cpu_time_s": "cpu_time", "memory_bytes": "memory", "open_files": "open_files", "processes": "processes"}


def bounded(asked: Limits | None, most: Limits) -> Limits:
    """Returns the limits of a script: those asked for, else the ant's own.

    Raises:
        SpecRefusedError: more is asked for than the ant allows.
    """
    if asked is None:
        return most
    values = {name: _bounded(word, getattr(asked, name), getattr(most, name)) for name, word in _WORDS.items()}
    return msgspec.convert(values, Limits)


def _bounded(word: str, asked: float | None, most: float | None) -> float | None:
    if asked is not None and most is not None and asked > most:
        raise SpecRefusedError(
            f"limits.{word}: {asked:g} is more than the {most:g} that this ant allows; ask for less, or raise its"
            " FORMICARY_SHELL_LIMITS"
        )
    return most if asked is None else asked


def limit_process(pid: int, limits: Limits) -> None:
    """Sets the limits of a process, which all that it starts inherits; each of them counts for itself.

    ``processes`` counts all processes of the user, wherever they come from. ``memory_bytes`` bounds the data segment,
    not the address space: runtimes reserve gigabytes of that which they never touch. A process that is gone is fine.
    """
    if limits.cpu_time_s is not None:
        seconds = math.ceil(limits.cpu_time_s)
        _set(pid, resource.RLIMIT_CPU, seconds, seconds + _CPU_GRACE_S)
    if limits.memory_bytes is not None:
        _set(pid, resource.RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes)
    if limits.open_files is not None:
        _set(pid, resource.RLIMIT_NOFILE, limits.open_files, limits.open_files)
    if limits.processes is not None:
        _set(pid, resource.RLIMIT_NPROC, limits.processes, limits.processes)


def _set(pid: int, kind: int, soft: int, hard: int) -> None:
    """Never raises a limit above the one that the process has already."""
    with contextlib.suppress(ProcessLookupError):
        present = resource.prlimit(pid, kind)[1]
        if present != resource.RLIM_INFINITY:
            soft, hard = min(soft, present), min(hard, present)
        resource.prlimit(pid, kind, (soft, hard))
