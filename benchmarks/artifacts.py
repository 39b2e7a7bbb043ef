"""Artifacts in a bucket against the driver used plainly, in turns on one server: large files, and many small ones."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.report import Figure
from benchmarks.servers import served
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.registry import make_store

BUCKET = "bench"
_MEBIBYTE = 1024 * 1024
_LARGE_BYTES = 128 * _MEBIBYTE
_SMALL_BYTES = 1000
#: Small files, in so many turns.
_SMALL_COUNT = 10_000
_SMALL_TURNS = 5
#: Files of one attempt that an ant moves at the same time.
_AT_ONCE = 8
#: Runs of the large file; the best counts.
_ROUNDS = 6
#: The share of the driver's own speed that ours must reach.
_GOAL = 0.9


class Spent(NamedTuple):
    """Seconds by the clock, and of the processors by this process: those of the server are not in it."""

    elapsed_s: float
    cpu_s: float


class Mover(Protocol):
    """Moves files to a server and back."""

    async def put(self, key: str, source: Path) -> None:
        """Stores a file."""

    async def fetch(self, key: str, target: Path) -> None:
        """Gets it back."""


class Bare:
    """aioboto3 as its documentation shows it; nothing is checked."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def put(self, key: str, source: Path) -> None:
        await self._client.upload_file(str(source), BUCKET, key)

    async def fetch(self, key: str, target: Path) -> None:
        await self._client.download_file(BUCKET, key, str(target))


class Ours:
    """The store, as ants use it: every byte is digested on its way."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._digests: dict[str, str] = {}

    async def put(self, key: str, source: Path) -> None:
        self._digests[key] = (await self._store.put(key, source)).sha256

    async def fetch(self, key: str, target: Path) -> None:
        await self._store.fetch(key, target, self._digests[key])


async def artifacts() -> list[Figure]:
    """Measures up- and download of a large file."""
    async with _movers() as movers:
        with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
            return await _large(movers, Path(folder))


async def files() -> list[Figure]:
    """Measures up- and download of many small files."""
    async with _movers() as movers:
        with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
            return await _small(movers, Path(folder))


@asynccontextmanager
async def _movers() -> AsyncIterator[dict[str, Mover]]:
    async with bucket() as (store, client):
        yield {"bare": Bare(client), "ours": Ours(store)}


@asynccontextmanager
async def bucket() -> AsyncIterator[tuple[ArtifactStore, Any]]:
    """Yields a store in a bucket of a fresh server, and a bare client of the same server."""
    import aioboto3

    async with served("s3") as urls:
        endpoint = urls["S3_ENDPOINT"]
        os.environ |= {"AWS_ACCESS_KEY_ID": urls["S3_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": urls["S3_SECRET_KEY"]}
        store = make_store(f"s3://{BUCKET}/ours?endpoint={endpoint}&region=us-east-1")
        async with aioboto3.Session().client("s3", endpoint_url=endpoint, region_name="us-east-1") as client:
            await client.create_bucket(Bucket=BUCKET)
            await store.open()
            yield store, client
            await store.close()


async def _large(movers: dict[str, Mover], folder: Path) -> list[Figure]:
    source, target = folder / "large", folder / "target"
    with source.open("wb") as file:
        for _ in range(_LARGE_BYTES // _MEBIBYTE):
            file.write(os.urandom(_MEBIBYTE))
    megabytes = _LARGE_BYTES / 1e6
    up = await _in_turns(movers, lambda mover, number: mover.put(f"large{number}", source), _ROUNDS, min)
    down = await _in_turns(movers, lambda mover, number: mover.fetch(f"large{number}", target), _ROUNDS, min)
    note = f"{_LARGE_BYTES // _MEBIBYTE} MiB, best of {_ROUNDS}"
    return [*_compared("upload", up, megabytes, "MB/s", note), *_compared("download", down, megabytes, "MB/s", note)]


async def _small(movers: dict[str, Mover], folder: Path) -> list[Figure]:
    source, targets = folder / "small", folder / "targets"
    source.write_bytes(os.urandom(_SMALL_BYTES))
    targets.mkdir()

    async def put(mover: Mover, turn: int) -> None:
        await _each(_numbers(turn), lambda number: mover.put(f"small/{number}", source))

    async def fetch(mover: Mover, turn: int) -> None:
        await _each(_numbers(turn), lambda number: mover.fetch(f"small/{number}", targets / str(number)))

    up = await _in_turns(movers, put, _SMALL_TURNS, sum)
    down = await _in_turns(movers, fetch, _SMALL_TURNS, sum)
    note = f"{_SMALL_COUNT} of {_SMALL_BYTES} bytes, {_AT_ONCE} at once"
    return [
        *_compared("small uploads", up, _SMALL_COUNT, "files/s", note),
        *_compared("small downloads", down, _SMALL_COUNT, "files/s", note),
    ]


def _numbers(turn: int) -> range:
    count = _SMALL_COUNT // _SMALL_TURNS
    return range(turn * count, (turn + 1) * count)


async def _each(numbers: Iterable[int], work: Callable[[int], Awaitable[None]]) -> None:
    waiting = iter(numbers)

    async def take() -> None:
        for number in waiting:
            await work(number)

    await asyncio.gather(*(take() for _ in range(_AT_ONCE)))


async def _in_turns(
    movers: dict[str, Mover],
    work: Callable[[Mover, int], Awaitable[None]],
    turns: int,
    of_all: Callable[[list[float]], float],
) -> dict[str, Spent]:
    """Returns what each spent, of all its turns."""
    spent: dict[str, list[Spent]] = {name: [] for name in movers}
    for turn in range(turns):
        for name, mover in movers.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            await work(mover, turn)
            spent[name].append(Spent(time.perf_counter() - start, time.process_time() - cpu_start))
    return {
        name: Spent(of_all([each.elapsed_s for each in turns]), of_all([each.cpu_s for each in turns]))
        for name, turns in spent.items()
    }


def _compared(name: str, spent: dict[str, Spent], amount: float, unit: str, note: str) -> list[Figure]:
    bare, ours = spent["bare"], spent["ours"]
    return [
        Figure(f"artifacts: {name}, bare client", amount / bare.elapsed_s, unit, note=note),
        Figure(f"artifacts: {name}", amount / ours.elapsed_s, unit, note=note),
        Figure(f"artifacts: {name}, of the bare client's", bare.elapsed_s / ours.elapsed_s, "", _GOAL),
        Figure(f"artifacts: {name}, processor time, of the bare client's", ours.cpu_s / bare.cpu_s, ""),
    ]
