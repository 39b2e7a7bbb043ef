"""What more ants bring, what many ants cost, and whether a long queue makes scheduling dearer."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from benchmarks.colony import must_complete, run_job, wide
from benchmarks.report import Figure
from benchmarks.servers import server
from benchmarks.swarm import swarm
from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.metrics import JOBS_ENDED
from formicary.store.claims import ClaimStore
from formicary.store.database import Database
from formicary.store.embedded import EmbeddedPostgres

_SLOTS = 8
#: Rounds of sleeping tasks that every slot runs one after the other, one second each.
_WAVES = 10
_CROWD = 1000
_LONG_QUEUE = 1_000_000
_SHORT_QUEUE = 1_000
#: Jobs of the long queue that are run.
_MEASURED = 20_000
_FILL = """
INSERT INTO jobs (id, job_type_id, definition_id, shard, state, due_at, created_at)
SELECT uuidv7((n - $1) * interval '1 ms'), t.id, d.id, n % (SELECT count(*) FROM leases WHERE shard IS NOT NULL),
    'PENDING', now() + (n - $1) * interval '1 ms', now() + (n - $1) * interval '1 ms'
FROM generate_series(1, $1) AS n CROSS JOIN definitions d JOIN job_types t USING (job_type)
WHERE d.job_type = 'wide-1'"""


async def ants() -> list[Figure]:
    """Sleeping tasks on 1, 4 and 16 ants, each a process, over Redis."""
    figures = []
    async with server("redis") as url:
        for count in (1, 4, 16):
            share = await _sleeping(url, count)
            note = f"{_SLOTS} slots each, {_WAVES} tasks of 1 s a slot"
            figures.append(Figure(f"{count} ants: share of the ideal", share, "", goal=0.98, note=note))
    return figures


async def _sleeping(url: str, count: int) -> float:
    """Returns how near ``count`` ants come to the time that their slots would need at least."""
    tasks = "\n".join(
        f"  - {{task_type: t{n}, method: PYTHON, function: 'benchmarks.tasks:second'}}"
        for n in range(count * _SLOTS * _WAVES)
    )
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        environment = {"FORMICARY_HOME": folder, "FORMICARY_BROKER_URL": url}
        async with wiring.queen(settings_module.load(environment), "bench") as running, AsyncExitStack() as stack:
            for number in range(count):
                await stack.enter_async_context(_ant(url, f"{folder}/ant{number}", f"{count}-{number}"))
            await _until_registered(running, count)
            await running.manager.save_definition(f"job_type: sleeping\ntasks:\n{tasks}\n")
            elapsed_s = await run_job(running, "sleeping")
            await must_complete(running, 1)
    return _WAVES / elapsed_s


@asynccontextmanager
async def _ant(url: str, home: str, name: str) -> AsyncIterator[None]:
    environment = os.environ | {"FORMICARY_HOME": home, "FORMICARY_BROKER_URL": url, "FORMICARY_LOG_LEVEL": "warning"}
    command = str(Path(sys.executable).with_name("formicary"))
    options = ["--id", name, "--slots", str(_SLOTS), "--methods", "PYTHON", "--python-path", "."]
    process = await asyncio.create_subprocess_exec(command, "ant", *options, env=environment)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def _until_registered(running: wiring.Colony, count: int) -> None:
    while len(running.manager.ants()) < count:
        await asyncio.sleep(0.05)


async def crowd(count: int = 20_000) -> list[Figure]:
    """The same wide job on one simulated ant, and on 1,000 with as many slots together, in one process."""
    few = await _crowded(1, 4 * _CROWD, count)
    many = await _crowded(_CROWD, 4, count)
    return [
        Figure("1 simulated ant: tasks/s", few, "1/s", note=f"{4 * _CROWD} slots"),
        Figure(f"{_CROWD} simulated ants: tasks/s", many, "1/s", note="4 slots each"),
        Figure("share that is left", many / few, "", note="within this run"),
    ]


async def _crowded(ant_count: int, slots: int, count: int, rounds: int = 3) -> float:
    url = f"memory://crowd-{ant_count}"
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        settings = settings_module.load({"FORMICARY_HOME": folder, "FORMICARY_BROKER_URL": url})
        async with wiring.queen(settings, "bench") as running, swarm(url, ant_count, slots):
            await _until_registered(running, ant_count)
            await running.manager.save_definition(wide(count))
            rates = [count / await run_job(running, f"wide-{count}") for _ in range(rounds)]
            await must_complete(running, 1)
    return max(rates)


async def pending() -> list[Figure]:
    """What the scheduler's look at the queue costs a job, with 1,000 and with 1,000,000 jobs pending."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        short, long = Path(folder, "short"), Path(folder, "long")
        async with _filled(short, _SHORT_QUEUE) as few, _filled(long, _LONG_QUEUE) as many:
            short_s, long_s = await _looks(few, many)
        rate = await _ending_rate(long, _MEASURED)
    return [
        Figure("scheduling a job, 1,000 pending", short_s * 1e6, "µs"),
        Figure("scheduling a job, 1,000,000 pending", long_s * 1e6, "µs"),
        Figure("ratio", long_s / short_s, "", goal=1.2, is_ceiling=True, note="looked at in turns"),
        Figure("jobs/s with 1,000,000 pending", rate, "1/s", note="one no-op task each"),
    ]


@asynccontextmanager
async def _filled(home: Path, count: int) -> AsyncIterator[ClaimStore]:
    """Yields the full queue of a database that nobody serves."""
    async with wiring.queen(settings_module.load({"FORMICARY_HOME": str(home)})) as running:
        await running.manager.save_definition(wide(1))
    postgres = EmbeddedPostgres(home / "postgres")
    database = Database(await postgres.start())
    await database.open()
    try:
        async with database.connection() as connection:
            await connection.execute(_FILL, count, timeout=600)
            await connection.execute("VACUUM ANALYZE jobs", timeout=600)
        yield ClaimStore(database)
    finally:
        await database.close()
        await postgres.stop()


async def _looks(*queues: ClaimStore, limit: int = 1000, rounds: int = 200) -> list[float]:
    """Returns the median seconds a job that a look at each queue takes: in turns, as the machine changes its pace."""
    times: list[list[float]] = [[] for _ in queues]
    for _ in range(rounds):
        for queue, its_times in zip(queues, times, strict=True):
            started = time.perf_counter()
            found = await queue.peek(limit, ())
            its_times.append((time.perf_counter() - started) / len(found))
    return [median(its_times) for its_times in times]


async def _ending_rate(home: Path, count: int) -> float:
    """Returns the jobs a second that end."""
    options = AntOptions(slots=1000, methods=("PYTHON",), python_paths=(str(Path.cwd()),))
    async with wiring.up(settings_module.load({"FORMICARY_HOME": str(home)}), options):
        before, started = _ended(), time.perf_counter()
        while _ended() - before < count:
            await asyncio.sleep(0.01)
        return (_ended() - before) / (time.perf_counter() - started)


def _ended() -> float:
    samples = [sample for metric in JOBS_ENDED.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))
