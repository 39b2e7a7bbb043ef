"""Runs one job for ``formicary run``: finds or starts a colony, submits, shows progress, ends with the result."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from formicary.artifacts import blobs
from formicary.cli.client import Client
from formicary.cli.orphans import RunLedger
from formicary.cli.output import print_text
from formicary.cli.progress import Progress, summary
from formicary.cli.results import FOLDER as RESULTS
from formicary.cli.results import Results
from formicary.cli.source import JobSource, LocalJob, RemoteJob, submit_remote
from formicary.errors import FormicaryError, HomeHeldError, NotFoundError
from formicary.home import HomeLock
from formicary.ids import JobId, new_job_id
from formicary.model.jobs import JobRequest, JobView
from formicary.model.parse import parse_definition
from formicary.model.states import JobState
from formicary.queen.manager.manager import Manager
from formicary.settings import Settings

_INTERRUPTED = 130
#: How long a run waits for servers that are away, in seconds: somebody sits in front of it.
_PATIENCE_S = 5.0


class Wanted(NamedTuple):
    """What the flags of ``run`` say."""

    file: str
    text: str
    params: dict[str, object]
    is_watched: bool
    is_json: bool
    slots: int | None
    python_path: str | None
    has_own_artifacts_url: bool


async def run_job(loaded: Settings, wanted: Wanted) -> int:
    """Runs the job and returns the exit code: 0 COMPLETED, 1 ended otherwise, 130 interrupted.

    Raises:
        FormicaryError: it could not be submitted.
    """
    parse_definition(wanted.text, wanted.file)
    try:
        with HomeLock(loaded.home, "run"):
            return await _run_here(loaded, wanted)
    except HomeHeldError as error:
        return await _run_elsewhere(loaded, wanted, error)


async def _run_elsewhere(loaded: Settings, wanted: Wanted, held: HomeHeldError) -> int:
    listen = held.holder.get("listen", "")
    if listen:
        _note(f"{held}; submitting to it at {listen}")
        client = Client(listen, loaded.token)
        job_id = await submit_remote(client, wanted.text, wanted.params)
        return await _watch(RemoteJob(client, job_id), wanted)
    with _fresh_home() as home:
        _note(f"{held}; taking a fresh home, {home}")
        artifacts_url = loaded.artifacts_url if wanted.has_own_artifacts_url else (home / "artifacts").as_uri()
        fresh = msgspec.structs.replace(loaded, home=home, artifacts_url=artifacts_url)
        with HomeLock(home, "run"):
            return await _run_here(fresh, wanted)


async def _run_here(loaded: Settings, wanted: Wanted) -> int:
    from formicary import wiring
    from formicary.cli.ant_flags import ant_options

    options = ant_options(slots=wanted.slots, python_path=wanted.python_path)
    async with wiring.up(loaded, options, _PATIENCE_S) as colony:
        ledger = RunLedger(loaded.home)
        await ledger.cancel_orphans(colony.manager)
        saved = await colony.manager.save_definition(wanted.text, wanted.file)
        request = JobRequest(job_type=saved.record.job_type, version=saved.record.version, params=wanted.params)
        job_id = new_job_id()
        ledger.note(job_id)
        try:
            await colony.manager.submit(request, job_id)
            results = Results(loaded.home, job_id, loaded.artifacts_url)
            return await _watch(LocalJob(colony.manager, job_id, results), wanted)
        finally:
            await _forget_if_over(ledger, colony.manager, job_id)


async def _forget_if_over(ledger: RunLedger, manager: Manager, job_id: JobId) -> None:
    try:
        is_over = await manager.has_ended(job_id)
    except NotFoundError:
        is_over = True
    except FormicaryError:
        is_over = False
    if is_over:
        ledger.forget(job_id)


async def _watch(source: JobSource, wanted: Wanted) -> int:
    """Shows progress until the job ended; the first interrupt cancels the job, the second leaves it."""
    progress = Progress(source, is_quiet=not wanted.is_watched, stream=sys.stderr if wanted.is_json else sys.stdout)
    async with _interrupts() as interrupts:
        showing = asyncio.ensure_future(progress.show())
        interrupted = asyncio.ensure_future(interrupts.get())
        await asyncio.wait({showing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        was_interrupted = interrupted.done() and not showing.done()
        if was_interrupted:
            await _cancel(source)
            leaving = asyncio.ensure_future(interrupts.get())
            await asyncio.wait({showing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not showing.done():
                _leave_at_once()
        interrupted.cancel()
        job = await showing
    await _report(source, job, wanted)
    if was_interrupted:
        return _INTERRUPTED
    return 0 if job.state is JobState.COMPLETED else 1


def _leave_at_once() -> NoReturn:
    """Ends the process without draining: its warden ends the work, and the next run cancels the job for good."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


async def _cancel(source: JobSource) -> None:
    _note("cancelling the job; interrupt again to leave at once")
    try:
        await source.cancel()
    except FormicaryError as error:
        _note(str(error))


async def _report(source: JobSource, job: JobView, wanted: Wanted) -> None:
    from formicary.queen.api import wire

    if wanted.is_json:
        print_text(msgspec.json.format(wire.encode(wire.job_json(job)), indent=2).decode())
    stream = sys.stderr if wanted.is_json else sys.stdout
    for line in summary(job, source):
        print(line, file=stream)


@asynccontextmanager
async def _interrupts() -> AsyncIterator[asyncio.Queue[int]]:
    queue: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _fresh_home:  # noqa: N801 - used like a function
    """A home for one run; what remains of it afterwards is its artifacts, and the links that name them."""

    def __enter__(self) -> Path:
        self._home = Path(tempfile.mkdtemp(prefix="formicary-run-"))
        return self._home

    def __exit__(self, *exc: object) -> None:
        artifacts = self._home / "artifacts"
        # Caches and output may lie there too; nobody comes back for those.
        if not any(path.is_file() for path in (artifacts / blobs.PREFIX).rglob("*")):
            shutil.rmtree(self._home, ignore_errors=True)
            return
        for path in self._home.iterdir():
            if path not in (artifacts, self._home / RESULTS):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _note(text: str) -> None:
    print(f"formicary: {text}", file=sys.stderr)
