"""One job after the other, from a process of its own: ``python -m benchmarks.prober PORT COUNT`` prints p50, p99 in s.

Over one kept connection: submissions that wait for their job's end.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

_SUBMIT = b'{"job_type": "wide-1"}'
_WARM_UP = 50


async def probe(port: int, count: int) -> tuple[float, float]:
    """Returns p50 and p99 of ``count`` jobs."""
    streams = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(_WARM_UP):
        await _one(*streams)
    times = sorted([await _one(*streams) for _ in range(count)])
    streams[1].close()
    return times[count // 2], times[int(count * 0.99)]


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    start = time.perf_counter()
    job = await _ask(reader, writer, b"POST /api/v1/jobs?wait_s=30", _SUBMIT)
    elapsed_s = time.perf_counter() - start
    if job["state"] != "COMPLETED":
        raise AssertionError(job)
    return elapsed_s


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: bytes, body: bytes) -> Any:
    writer.write(
        b"%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (what, len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return json.loads(await reader.readexactly(length))


if __name__ == "__main__":
    print(*uvloop.run(probe(*map(int, sys.argv[1:]))))
