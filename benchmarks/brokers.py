"""Throughput and latency on each broker, beside the memory broker and beside the bare client of each."""

from benchmarks import overhead
from benchmarks.colony import colony, must_complete, run_job, wide
from benchmarks.latency import job_times
from benchmarks.report import Figure
from benchmarks.servers import server
from benchmarks.throughput import SLOTS

#: Jobs before the latency counts: Kafka and Pulsar are Java, which compiles its code only after it ran that often.
_WARM_UP = 1200
_WARM = f"1000 jobs, after {_WARM_UP + 300}"


async def redis() -> list[Figure]:
    """On Redis, with its append-only file."""
    return await _broker("redis", goal_ms=5.0)


async def kafka() -> list[Figure]:
    """On Kafka, one node."""
    return await _broker("kafka", goal_ms=8.0)


async def pulsar() -> list[Figure]:
    """On Pulsar, standalone."""
    return await _broker("pulsar", goal_ms=8.0)


async def _broker(name: str, goal_ms: float, count: int = 20_000) -> list[Figure]:
    """Queen, ant, broker and Postgres on this machine; queen and ant in this process."""
    memory = await _tasks_per_second(None, count)
    async with server(name) as url:
        return await _figures(name, url, count, memory, goal_ms)


async def _figures(name: str, url: str, count: int, memory: float, goal_ms: float) -> list[Figure]:
    with overhead.recorded() as batches:
        rate = await _tasks_per_second(url, count)
    async with colony(8, url) as running:
        cold_s, _ = await job_times(running)
        await job_times(running, _WARM_UP)
        p50_s, p99_s = await job_times(running, 1000)
    bare_s, ours_s = await overhead.replayed(name, url, batches)
    return [
        Figure(f"{name}: tasks/s", rate, "1/s", goal=10_000, note=f"slots {SLOTS}, prefetch {2 * SLOTS}"),
        Figure(f"{name}: share of memory's", rate / memory, "", note="within this run"),
        Figure(f"{name}: submit to COMPLETED, p50", p50_s * 1000, "ms", goal=goal_ms, is_ceiling=True, note=_WARM),
        Figure(f"{name}: submit to COMPLETED, p99", p99_s * 1000, "ms"),
        Figure(f"{name}: p50 of the first 300 jobs", cold_s * 1000, "ms", note="the server has just started"),
        Figure(f"{name}: bus / bare client", ours_s / bare_s, "", goal=2, is_ceiling=True, note="the same messages"),
    ]


async def _tasks_per_second(url: str | None, count: int, rounds: int = 3) -> float:
    async with colony(SLOTS, url) as running:
        await running.manager.save_definition(wide(count))
        rates = []
        for _ in range(rounds):
            rates.append(count / await run_job(running, f"wide-{count}"))
            await must_complete(running, 1)
    return max(rates)
