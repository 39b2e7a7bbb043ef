"""What the PYTHON tasks of these tests call: each call notes its start and its end, as the scripts do."""

import fcntl
import os
import time
from pathlib import Path


def hold(folder: str, job_id: str, task_type: str, number: str, seconds: float) -> str:
    """Holds the task's lock for ``seconds``; two at once are noted as ``overlap``. Returns ``number``."""
    name = f"{job_id} {task_type}"
    with (Path(folder) / "locks" / name.replace(" ", ".")).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _note(folder, f"{name} {number} {os.getpid()} overlap")
        _note(folder, f"{name} {number} {os.getpid()} start")
        time.sleep(seconds)
        _note(folder, f"{name} {number} {os.getpid()} end")
    return number


def _note(folder: str, line: str) -> None:
    """Appends in one write, which the kernel keeps whole."""
    descriptor = os.open(Path(folder) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
