"""The bare floor: the same hops and commits as the real loop, and no feature.

Per task: one packed msgpack event to a worker, a call of a no-op coroutine on another thread's loop, one packed event
back, and two row writes (insert, then update) in Postgres with fsync, one statement a batch.
"""

import asyncio
import tempfile
import threading
import time
from pathlib import Path

import asyncpg
import msgspec

from formicary.store.embedded import EmbeddedPostgres

_WINDOW = 2000
_INSERT = "INSERT INTO floor SELECT u.n, 'READY', NULL FROM unnest($1::int[]) AS u(n)"
_UPDATE = "UPDATE floor SET state = 'COMPLETED', at = now() WHERE n = ANY($1::int[])"


async def tasks_per_second(count: int) -> float:
    """Returns the rate of the bare loop on a fresh embedded Postgres."""
    with tempfile.TemporaryDirectory(prefix="formicary-floor-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        connection = await asyncpg.connect(await postgres.start())
        try:
            await connection.execute("CREATE TABLE floor (n int PRIMARY KEY, state text, at timestamptz)")
            return count / await _run(connection, count)
        finally:
            await connection.close()
            await postgres.stop()


async def _nothing() -> None:
    pass


class _Worker:
    """A thread with a loop of its own that runs coroutines in batches."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, body: bytes, done: "asyncio.Queue[bytes]", home: asyncio.AbstractEventLoop) -> None:
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._run(body, done, home)))

    async def _run(self, body: bytes, done: "asyncio.Queue[bytes]", home: asyncio.AbstractEventLoop) -> None:
        numbers = msgspec.msgpack.decode(body)
        for _ in numbers:
            await _nothing()
        home.call_soon_threadsafe(done.put_nowait, msgspec.msgpack.encode(numbers))


async def _run(connection: asyncpg.Connection, count: int) -> float:
    worker, done = _Worker(), asyncio.Queue[bytes]()
    home = asyncio.get_running_loop()
    start = time.perf_counter()
    sent = finished = 0
    while finished < count:
        batch = list(range(sent, min(sent + _WINDOW, count)))
        if batch:
            await connection.execute(_INSERT, batch)
            worker.run(msgspec.msgpack.encode(batch), done, home)
            sent += len(batch)
        numbers = msgspec.msgpack.decode(await done.get())
        await connection.execute(_UPDATE, numbers)
        finished += len(numbers)
    elapsed_s = time.perf_counter() - start
    worker.loop.call_soon_threadsafe(worker.loop.stop)
    return elapsed_s
