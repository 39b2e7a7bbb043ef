"""Tasks that others do: WEBSOCKET and MESSAGING, beside the same messages without Formicary.

The far side is a process of its own that does nothing (``peer.py``); queen, ant, Postgres and the broker share the
machine with it. *Bare* is one connection that sends as many such messages and takes the answers: all at once for the
rate, one after the other for the round trip.
"""

import asyncio
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import WSMsgType, web

from benchmarks.colony import colony, must_complete, run_job, wide
from benchmarks.latency import job_times
from benchmarks.peer import SLOTS, WORK
from benchmarks.report import Figure
from benchmarks.servers import server
from brokers.base import Broker, Message
from brokers.registry import make_broker
from formicary.wiring import Colony

COUNT = 3_000
ROUNDS = 3
#: Round trips whose median is taken.
TRIPS = 300
_ENCODE = msgspec.json.Encoder().encode

#: Sends so many messages and returns when all are answered.
Exchange = Callable[[int], Awaitable[None]]


async def websocket() -> list[Figure]:
    """One connected worker with 1,000 slots; the memory broker."""
    port = _free_port()
    url = f"ws://127.0.0.1:{port}/v1/workers"
    async with _bare_socket(port) as exchange, _peer(url):
        bare = await _bare(exchange)
    environment = {"FORMICARY_WORKERS_LISTEN": f"127.0.0.1:{port}"}
    work = f"method: WEBSOCKET, worker: {{method: {WORK}}}"
    async with colony(SLOTS, methods=("WEBSOCKET",), environment=environment) as running, _peer(url):
        return await _figures("websocket", bare, running, work)


async def messaging() -> list[Figure]:
    """One service, on Redis."""
    async with server("redis") as url, _peer(url):
        async with _bare_topics(url) as exchange:
            bare = await _bare(exchange)
        async with colony(SLOTS, url, methods=("MESSAGING",)) as running:
            return await _figures("messaging", bare, running, f"method: MESSAGING, topic: {WORK}")


async def _figures(name: str, bare: tuple[float, float], running: Colony, work: str) -> list[Figure]:
    await running.manager.save_definition(wide(COUNT, work))
    rates = []
    for _ in range(ROUNDS):
        rates.append(COUNT / await run_job(running, f"wide-{COUNT}"))
        await must_complete(running, 1)
    p50_s, p99_s = await job_times(running, TRIPS, work)
    await must_complete(running, TRIPS)
    bare_rate, bare_trip_s = bare
    return [
        Figure(f"{name}: tasks/s", max(rates), "1/s", note=f"slots {SLOTS}, best of {ROUNDS}"),
        Figure(f"{name}: bare exchanges/s", bare_rate, "1/s"),
        Figure(f"{name}: submit to COMPLETED, p50", p50_s * 1000, "ms"),
        Figure(f"{name}: submit to COMPLETED, p99", p99_s * 1000, "ms"),
        Figure(f"{name}: bare round trip, p50", bare_trip_s * 1000, "ms"),
    ]


async def _bare(exchange: Exchange) -> tuple[float, float]:
    """Returns exchanges a second, and the median round trip in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await exchange(COUNT)
        times.append(time.perf_counter() - start)
    trips = []
    for _ in range(TRIPS):
        start = time.perf_counter()
        await exchange(1)
        trips.append(time.perf_counter() - start)
    return COUNT / min(times), statistics.median(trips)


def _request(number: int, reply_to: str) -> dict[str, object]:
    """Returns what stands in a task's message, of both kinds."""
    return {
        "type": "task",
        "task": f"01a1fe02-a9ca-7ae7-a6f8-95aab6fb3d82/t{number}/1",
        "correlation_id": f"01a1fe02-a9ca-7ae7-a6f8-95aab6fb3d82/t{number}/1",
        "reply_to": reply_to,
        "timeout_s": 3600.0,
        "payload": None,
    }


@asynccontextmanager
async def _bare_socket(port: int) -> AsyncIterator[Exchange]:
    connected: asyncio.Future[web.WebSocketResponse] = asyncio.get_running_loop().create_future()
    answers: asyncio.Queue[str] = asyncio.Queue()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse(compress=False)
        await response.prepare(request)
        await response.receive()
        await response.send_str("{}")
        connected.set_result(response)
        async for frame in response:
            if frame.type is WSMsgType.TEXT:
                answers.put_nowait(frame.data)
        return response

    async def exchange(count: int) -> None:
        response = await connected
        for number in range(count):
            await response.send_str(_ENCODE(_request(number, "")).decode())
        for _ in range(count):
            await answers.get()

    app = web.Application()
    app.router.add_get("/v1/workers", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield exchange
    await runner.cleanup()


@asynccontextmanager
async def _bare_topics(url: str) -> AsyncIterator[Exchange]:
    broker: Broker = make_broker(url)
    await broker.open()
    replies = "bench-replies"
    place = await broker.end(replies)

    async def exchange(count: int) -> None:
        nonlocal place
        await broker.publish([Message(WORK, "", _ENCODE(_request(number, replies))) for number in range(count)])
        while count > 0:
            entries = await broker.read(replies, place, 1000, 60.0)
            place, count = entries[-1].position, count - len(entries)

    yield exchange
    await broker.close()


@asynccontextmanager
async def _peer(url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.peer", url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    if await process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"no peer on {url}")
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
