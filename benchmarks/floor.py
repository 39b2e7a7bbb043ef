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
_JOB_ID = "01a1fe00-f32c-7ff5-b24f-6d8e3f1babf0"
_TABLE = """CREATE TABLE floor (job_id uuid, n int, state text, attempt int, incarnation text, exit_code int,
    dispatched_at float8, finished_at float8, PRIMARY KEY (job_id, n)) WITH (fillfactor = 45)"""
_INSERT = """INSERT INTO floor (job_id, n, state, attempt, incarnation, dispatched_at)
    SELECT u.*, 'READY', 1, 'ant@1', $3 FROM unnest($1::uuid[], $2::int[]) AS u"""
_UPDATE = """UPDATE floor SET state = 'COMPLETED', exit_code = u.code, finished_at = u.at
    FROM unnest($1::uuid[], $2::int[], $3::int[], $4::float8[]) AS u (job_id, n, code, at)
    WHERE floor.job_id = u.job_id AND floor.n = u.n"""


class Dispatched(msgspec.Struct, array_like=True):
    """A task on its way to the worker."""

    job_id: str
    n: int
    attempt: int
    spec: str


class Finished(msgspec.Struct, array_like=True):
    """A result on its way back."""

    job_id: str
    n: int
    attempt: int
    exit_code: int
    at: float


_dispatches = msgspec.msgpack.Decoder(list[Dispatched])
_results = msgspec.msgpack.Decoder(list[Finished])
_encode = msgspec.msgpack.Encoder().encode


async def tasks_per_second(count: int) -> float:
    """Returns the rate of the bare loop on a fresh embedded Postgres."""
    with tempfile.TemporaryDirectory(prefix="formicary-floor-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        connection = await asyncpg.connect(await postgres.start())
        try:
            await connection.execute(_TABLE)
            return count / await _run(connection, count)
        finally:
            await connection.close()
            await postgres.stop()


async def _nothing() -> None:
    pass


class _Worker:
    """A thread with a loop of its own that runs a task per message, fed and emptied in batches."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, body: bytes, done: "asyncio.Queue[bytes]", home: asyncio.AbstractEventLoop) -> None:
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self._run(body, done, home)))

    async def _run(self, body: bytes, done: "asyncio.Queue[bytes]", home: asyncio.AbstractEventLoop) -> None:
        tasks = _dispatches.decode(body)
        await asyncio.gather(*[self.loop.create_task(_nothing()) for _ in tasks])
        finished = [Finished(task.job_id, task.n, task.attempt, 0, time.time()) for task in tasks]
        home.call_soon_threadsafe(done.put_nowait, _encode(finished))


async def _run(connection: asyncpg.Connection, count: int) -> float:
    worker, done = _Worker(), asyncio.Queue[bytes]()
    home = asyncio.get_running_loop()
    start = time.perf_counter()
    sent = finished = 0
    while finished < count:
        batch = range(sent, min(sent + _WINDOW, count))
        if batch:
            await connection.execute(_INSERT, [_JOB_ID] * len(batch), list(batch), time.time())
            worker.run(_encode([Dispatched(_JOB_ID, n, 1, "module:function") for n in batch]), done, home)
            sent += len(batch)
        results = _results.decode(await done.get())
        columns = zip(*[(one.job_id, one.n, one.exit_code, one.at) for one in results], strict=True)
        await connection.execute(_UPDATE, *columns)
        finished += len(results)
    elapsed_s = time.perf_counter() - start
    worker.loop.call_soon_threadsafe(worker.loop.stop)
    return elapsed_s
