"""A colony in this process, on a fresh home, and the jobs that the measurements submit."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.model.jobs import JobRequest
from formicary.model.states import JobState

NOTHING = "method: PYTHON, function: 'benchmarks.tasks:nothing'"


@asynccontextmanager
async def colony(
    slots: int,
    broker_url: str | None = None,
    methods: tuple[str, ...] = ("PYTHON",),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[wiring.Colony]:
    """Yields a running ``up`` with embedded Postgres (fsync on) and the memory broker, or the one of a URL."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        broker = {} if broker_url is None else {"FORMICARY_BROKER_URL": broker_url}
        settings = settings_module.load({"FORMICARY_HOME": folder, **broker, **(environment or {})})
        options = AntOptions(slots=slots, methods=methods, python_paths=(str(Path.cwd()),))
        async with wiring.up(settings, options) as running:
            yield running


def wide(count: int, work: str = NOTHING) -> str:
    """Returns a job of ``count`` independent tasks, which do nothing unless told otherwise."""
    tasks = "\n".join(f"  - {{task_type: t{n}, {work}}}" for n in range(count))
    return f"job_type: wide-{count}\ntasks:\n{tasks}\n"


def chain(count: int) -> str:
    """Returns a job of ``count`` no-op tasks, one after the other."""
    lines = [f"  - {{task_type: t{n}, {NOTHING}, on_completed: t{n + 1}}}" for n in range(count - 1)]
    lines.append(f"  - {{task_type: t{count - 1}, {NOTHING}}}")
    return f"job_type: chain-{count}\ntasks:\n" + "\n".join(lines) + "\n"


def fan(width: int) -> str:
    """Returns a job of 1 -> ``width`` -> 1 no-op tasks."""
    names = ", ".join(f"t{n}" for n in range(width))
    lines = [f"  - {{task_type: first, {NOTHING}, on_completed: [{names}]}}"]
    lines += [f"  - {{task_type: t{n}, {NOTHING}, on_completed: last}}" for n in range(width)]
    lines.append(f"  - {{task_type: last, {NOTHING}}}")
    return f"job_type: fan-{width}\ntasks:\n" + "\n".join(lines) + "\n"


async def run_job(running: wiring.Colony, job_type: str) -> float:
    """Submits a job and returns the seconds until its end was committed and seen."""
    start = time.perf_counter()
    submitted = await running.manager.submit(JobRequest(job_type=job_type))
    while not await running.manager.has_ended(submitted.job.id):
        await asyncio.sleep(0.002)
    return time.perf_counter() - start


async def must_complete(running: wiring.Colony, count: int) -> None:
    """Raises unless the ``count`` newest jobs are COMPLETED: a figure of failed jobs is none."""
    newest, _ = await running.manager.jobs(None, None, min(count, 500), None)
    wrong = [job for job in newest if job.state is not JobState.COMPLETED]
    if wrong:
        raise AssertionError(f"{len(wrong)} jobs did not complete: {wrong[0].error_message}")
