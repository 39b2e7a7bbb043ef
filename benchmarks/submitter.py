"""A lean HTTP client in a process of its own: ``python -m benchmarks.submitter PORT COUNT CONNECTIONS`` prints jobs/s.

Each connection submits one job at a time and waits for its answer, over keep-alive.
"""

import asyncio
import sys
import time

import uvloop

_BODY = b'{"job_type": "wide-1"}'
_REQUEST = (
    b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


async def submit(port: int, count: int, connections: int) -> float:
    """Returns the rate of accepted jobs."""
    start = time.perf_counter()
    await asyncio.gather(*[_connection(port, count // connections) for _ in range(connections)])
    return count / (time.perf_counter() - start)


async def _connection(port: int, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(count):
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 201"):
            raise AssertionError(head)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    writer.close()


if __name__ == "__main__":
    print(uvloop.run(submit(*map(int, sys.argv[1:]))))
