"""How long one job takes in an idle colony, over HTTP, and how many a second the API takes one by one."""

import asyncio
import time

import aiohttp
import asyncpg

from benchmarks.colony import colony, wide
from benchmarks.report import Figure
from formicary.queen.api.server import ApiServer
from formicary.wiring import Colony

_PORT = 27_777
_BASE = f"http://127.0.0.1:{_PORT}/api/v1"


async def submit_to_completed(count: int = 300) -> list[Figure]:
    """HTTP submit, then HTTP wait for the end, one job at a time."""
    async with colony(slots=8) as running, _api(running), aiohttp.ClientSession() as session:
        await running.manager.save_definition(wide(1))
        for _ in range(50):
            await _one(session)
        times = sorted([await _one(session) for _ in range(count)])
        commit_s = await _bare_commit(running)
    return [
        Figure("submit to COMPLETED, p50", times[count // 2] * 1000, "ms", goal=5, is_ceiling=True, note="slots 8"),
        Figure("submit to COMPLETED, p99", times[int(count * 0.99)] * 1000, "ms", goal=20, is_ceiling=True),
        Figure("one bare commit, p50", commit_s * 1000, "ms", note="three of them lie in that path"),
    ]


async def intake(count: int = 6000, connections: int = 8) -> list[Figure]:
    """One job a request, over keep-alive connections; nothing else runs on the machine but the colony itself."""
    async with colony(slots=1000) as running, _api(running), aiohttp.ClientSession() as session:
        await running.manager.save_definition(wide(1))
        await asyncio.gather(*[_submit(session, 20) for _ in range(connections)])
        start = time.perf_counter()
        await asyncio.gather(*[_submit(session, count // connections) for _ in range(connections)])
        rate = count / (time.perf_counter() - start)
    return [
        Figure("HTTP intake", rate, "jobs/s", goal=1_500, note=f"{connections} connections, client in the same process")
    ]


def _api(running: Colony) -> "_Serving":
    return _Serving(ApiServer(running.manager, ("127.0.0.1", _PORT)))


class _Serving:
    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def __aenter__(self) -> None:
        await self._server.start()

    async def __aexit__(self, *exc: object) -> None:
        await self._server.stop()


async def _one(session: aiohttp.ClientSession) -> float:
    start = time.perf_counter()
    async with session.post(f"{_BASE}/jobs", json={"job_type": "wide-1"}) as answer:
        job = await answer.json()
    async with session.get(f"{_BASE}/jobs/{job['id']}?wait_s=30") as answer:
        job = await answer.json()
    if job["state"] != "COMPLETED":
        raise AssertionError(job)
    return time.perf_counter() - start


async def _submit(session: aiohttp.ClientSession, count: int) -> None:
    for _ in range(count):
        async with session.post(f"{_BASE}/jobs", json={"job_type": "wide-1"}) as answer:
            await answer.read()
            answer.raise_for_status()


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
