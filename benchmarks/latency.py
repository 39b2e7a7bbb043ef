"""How long one job takes in an idle colony, over HTTP, and how many a second the API takes one by one."""

import asyncio
import sys
import time

import asyncpg

from benchmarks.colony import NOTHING, colony, wide
from benchmarks.report import Figure
from formicary.queen.api.server import ApiServer
from formicary.wiring import Colony

_PORT = 27_777


async def submit_to_completed() -> list[Figure]:
    """HTTP submit that waits for the end, one job at a time."""
    async with colony(slots=8) as running:
        p50_s, p99_s = await job_times(running)
        commit_s = await _bare_commit(running)
    return [
        Figure("submit to COMPLETED, p50", p50_s * 1000, "ms", goal=5, is_ceiling=True, note="slots 8, prefetch 256"),
        Figure("submit to COMPLETED, p99", p99_s * 1000, "ms", goal=20, is_ceiling=True),
        Figure("one bare commit, p50", commit_s * 1000, "ms", note="two of them lie in that path"),
    ]


async def job_times(running: Colony, count: int = 300, work: str = NOTHING) -> tuple[float, float]:
    """Returns how long a job of one task takes over HTTP in an idle colony, p50 and p99, in seconds."""
    async with _api(running):
        await running.manager.save_definition(wide(1, work))
        p50_s, p99_s = await _client("benchmarks.prober", count)
    return p50_s, p99_s


async def intake(count: int = 8000, connections: int = 8) -> list[Figure]:
    """One job a request over keep-alive; the jobs run meanwhile, on the same two cores as client and Postgres."""
    async with colony(slots=1000) as running, _api(running):
        await running.manager.save_definition(wide(1))
        await _client("benchmarks.submitter", connections * 50, connections)
        (rate,) = await _client("benchmarks.submitter", count, connections)
    return [
        Figure("HTTP intake, one by one", rate, "jobs/s", goal=1_500, note=f"{connections} connections; slots 1000")
    ]


async def _client(module: str, *numbers: int) -> list[float]:
    """Runs a client in a process of its own, so that it takes no time of the queen's loop; returns what it prints."""
    arguments = [sys.executable, "-m", module, str(_PORT), *map(str, numbers)]
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return [float(number) for number in output.split()]


def _api(running: Colony) -> "_Serving":
    return _Serving(ApiServer(running.manager, ("127.0.0.1", _PORT)))


class _Serving:
    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def __aenter__(self) -> None:
        await self._server.start()

    async def __aexit__(self, *exc: object) -> None:
        await self._server.stop()


async def _bare_commit(running: Colony, count: int = 100) -> float:
    connection = await asyncpg.connect(running.database_url)
    try:
        await connection.execute("CREATE TABLE bare_commit (n int)")
        times = []
        for number in range(count):
            start = time.perf_counter()
            await connection.execute("INSERT INTO bare_commit VALUES ($1)", number)
            times.append(time.perf_counter() - start)
        return sorted(times)[count // 2]
    finally:
        await connection.close()
