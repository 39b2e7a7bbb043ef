"""Tasks and jobs a second through the whole system, and the share of the bare floor that this is."""

import asyncio
import time

from benchmarks import floor
from benchmarks.colony import chain, colony, fan, must_complete, run_job, wide
from benchmarks.report import Figure
from formicary.model.jobs import JobRequest

#: Attempts that the one ant runs at once; as many again and more may wait there.
SLOTS = 1000


async def tasks_per_second(count: int = 20_000, rounds: int = 3) -> list[Figure]:
    """One wide job of no-op tasks."""
    bare = await floor.tasks_per_second(count)
    async with colony(SLOTS) as running:
        await running.manager.save_definition(wide(count))
        rates = []
        for _ in range(rounds):
            rates.append(count / await run_job(running, f"wide-{count}"))
            await must_complete(running, 1)
    best = max(rates)
    return [
        Figure(
            "tasks/s, one wide job",
            best,
            "1/s",
            goal=10_000,
            note=f"{count} tasks; slots {SLOTS}, prefetch {2 * SLOTS}",
        ),
        Figure("bare floor", bare, "1/s", note="the same hops and commits without features"),
        Figure("share of the floor", best / bare, "", note="within this run"),
    ]


async def jobs_per_second(count: int = 10_000, batch: int = 500) -> list[Figure]:
    """Single-task jobs, submitted in batches while they run."""
    async with colony(SLOTS) as running:
        await running.manager.save_definition(wide(1))
        start = time.perf_counter()
        last = ""
        for _ in range(count // batch):
            results = await running.manager.submit_batch([JobRequest(job_type="wide-1")] * batch)
            last = results[-1].job.id  # type: ignore[union-attr]  # no request of a benchmark is wrong
        submitted_s = time.perf_counter() - start
        while not await running.manager.has_ended(last) or await _unfinished(running):
            await asyncio.sleep(0.005)
        elapsed_s = time.perf_counter() - start
        await must_complete(running, 500)
    return [
        Figure(
            "jobs/s, one task each",
            count / elapsed_s,
            "1/s",
            goal=3_000,
            note=f"batches of {batch}; slots {SLOTS}, prefetch {2 * SLOTS}",
        ),
        Figure("jobs/s accepted", count / submitted_s, "1/s"),
    ]


async def _unfinished(running: object) -> bool:
    from formicary.model.states import JobState
    from formicary.wiring import Colony

    assert isinstance(running, Colony)
    for state in (JobState.PENDING, JobState.READY, JobState.EXECUTING):
        found, _ = await running.manager.jobs(state, None, 1, None)
        if found:
            return True
    return False


async def shapes(rounds: int = 5) -> list[Figure]:
    """A chain of 40 and a fan of 1,000, the best of some rounds on a warm colony."""
    async with colony(SLOTS) as running:
        await running.manager.save_definition(chain(40))
        await running.manager.save_definition(fan(1000))
        chain_s = min([await run_job(running, "chain-40") for _ in range(rounds)])
        fan_s = min([await run_job(running, "fan-1000") for _ in range(rounds)])
        await must_complete(running, 2 * rounds)
    return [
        Figure("chain of 40 tasks", chain_s, "s", goal=0.06, is_ceiling=True),
        Figure("1 -> 1,000 -> 1", fan_s, "s", goal=0.15, is_ceiling=True),
    ]


async def huge(count: int = 100_000) -> list[Figure]:
    """One job of 100,000 tasks, and what a task costs in memory."""
    import gc

    from benchmarks.machine import rss_bytes

    async with colony(SLOTS) as running:
        await running.manager.save_definition(wide(count))
        gc.collect()
        before = rss_bytes()
        elapsed_s = await run_job(running, f"wide-{count}")
        await must_complete(running, 1)
        used = rss_bytes() - before
    return [
        Figure(f"{count} tasks in one job", elapsed_s, "s"),
        Figure("memory a task", used / count, "bytes", goal=2048, is_ceiling=True, note="resident, queen and ant"),
    ]
