"""A cache of a 200 MB tree, stored and restored as an ant does it, beside a plain copy or a bare download of it."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.artifacts import BUCKET, Bare, bucket
from benchmarks.report import Figure
from formicary.ant.caches import Caches
from formicary.ant.folders import AttemptFolder
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.registry import make_store
from formicary.clock import SystemClock
from formicary.events.orders import Order
from formicary.model.definition import CachePolicy
from formicary.testing.owner import shell

#: What a folder of installed packages looks like: many small files, a few large ones, half of it compressible.
FILES = 4_000
TREE_BYTES = 200_000_000
FOLDERS = 200
ROUNDS = 5


async def caches() -> list[Figure]:
    """Measures on a local store and in a bucket, in turns with plain copies and bare downloads."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        home = Path(folder)
        tree = home / "tree" / "deps"
        await asyncio.to_thread(make_tree, tree)
        local = make_store((home / "store").as_uri())
        await local.open()
        async with bucket() as (remote, client):
            order = shell("true", cache=CachePolicy(key=os.urandom(4).hex(), paths=("deps",)), timeout_s=600.0)
            stored = [await used(store, order, tree) for store in (local, remote)]
            best = await _in_turns(
                {
                    "copy": lambda: copied(tree, home / "copy"),
                    "local": lambda: used(local, order, None),
                    "bare": lambda: downloaded(client, home / "packed"),
                    "bucket": lambda: used(remote, order, None),
                }
            )
            return [*_local(stored[0], best), *_remote(stored[1], best)]


class Cost(NamedTuple):
    """What something took by the clock, and of the processors."""

    elapsed_s: float
    cpu_s: float

    @classmethod
    def best(cls, costs: Sequence["Cost"]) -> "Cost":
        """Returns the least of each."""
        return cls(min(cost.elapsed_s for cost in costs), min(cost.cpu_s for cost in costs))


async def costed(work: Awaitable[tuple[float, int]]) -> Cost:
    """Returns the seconds that the work says it took, and those of the processors meanwhile."""
    start_s = time.process_time()
    elapsed_s, _ = await work
    return Cost(elapsed_s, time.process_time() - start_s)


async def _in_turns(works: dict[str, Callable[[], Awaitable[tuple[float, int]]]]) -> dict[str, Cost]:
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            costs[name].append(await costed(work()))
    return {name: Cost.best(spent) for name, spent in costs.items()}


def _local(stored: tuple[float, int], best: dict[str, Cost]) -> list[Figure]:
    tree = f"{FILES} files, 200 MB; best of {ROUNDS}"
    return [
        *_used("cache", stored, best["local"]),
        Figure("cache: plain copy of the tree", best["copy"].elapsed_s, "s", note=tree),
        Figure("cache: plain copy, processor time", best["copy"].cpu_s, "s", note="its removal included"),
    ]


def _remote(stored: tuple[float, int], best: dict[str, Cost]) -> list[Figure]:
    name, bare = "cache in a bucket", best["bare"]
    restored_s = best["bucket"].elapsed_s
    return [
        *_used(name, stored, best["bucket"]),
        Figure(f"{name}: bare client's download of its archive", bare.elapsed_s, "s", note="nothing is unpacked"),
        Figure(f"{name}: bare client's download, processor time", bare.cpu_s, "s"),
        Figure(f"{name}: restored, over that download", restored_s / bare.elapsed_s, ""),
        Figure(f"{name}: restored, over the local store's", restored_s / best["local"].elapsed_s, ""),
    ]


def _used(name: str, stored: tuple[float, int], restore: Cost) -> list[Figure]:
    stored_s, size_bytes = stored
    speed = f"{TREE_BYTES / 1e6 / restore.elapsed_s:.0f} MB/s of files; best of {ROUNDS}"
    return [
        Figure(f"{name}: stored", stored_s, "s", note=f"{size_bytes / 1e6:.0f} MB packed"),
        Figure(f"{name}: restored", restore.elapsed_s, "s", note=speed),
        Figure(f"{name}: restored, processor time", restore.cpu_s, "s"),
    ]


def make_tree(root: Path) -> None:
    rng = random.Random(1)
    words = [bytes(rng.choices(range(97, 123), k=8)) for _ in range(2_000)]
    sizes = [rng.paretovariate(1.2) for _ in range(FILES)]
    scale = TREE_BYTES / sum(sizes)
    for number, size in enumerate(sizes):
        folder = root / f"package{number % FOLDERS}" / "inner"
        folder.mkdir(parents=True, exist_ok=True)
        wanted = int(size * scale)
        content = b" ".join(rng.choices(words, k=wanted // 9 + 1)) if number % 2 else rng.randbytes(wanted)
        (folder / f"file{number}").write_bytes(content[:wanted])


async def copied(tree: Path, target: Path) -> tuple[float, int]:
    start = time.perf_counter()
    await asyncio.to_thread(shutil.copytree, tree, target, symlinks=True)
    elapsed_s = time.perf_counter() - start
    await asyncio.to_thread(shutil.rmtree, target)
    return elapsed_s, TREE_BYTES


async def downloaded(client: Any, target: Path) -> tuple[float, int]:
    """Gets the largest object of the bucket, which is the cache, as the driver's documentation shows it."""
    objects = (await client.list_objects_v2(Bucket=BUCKET))["Contents"]
    largest = max(objects, key=lambda each: each["Size"])
    start = time.perf_counter()
    await Bare(client).fetch(largest["Key"], target)
    return time.perf_counter() - start, largest["Size"]


async def used(store: ArtifactStore, order: Order, tree: Path | None) -> tuple[float, int]:
    """Returns seconds and bytes of a restore; with a tree, which is put in place first, of the store after it."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as root:
        folder = AttemptFolder(f"{root}/attempt")
        silent: Any = _Silence()
        use = Caches(store, SystemClock(), 10**12).use(order, folder, silent)
        assert use is not None
        start = time.perf_counter()
        await use.restore()
        if tree is not None:
            await asyncio.to_thread(shutil.copytree, tree, folder.path() / "deps")
            start = time.perf_counter()
            await use.store()
        elapsed_s, record = time.perf_counter() - start, use.record
        if record.problem or (tree is None and record.restored_bytes is None):
            raise AssertionError(f"the cache did not work: {record}")
        return elapsed_s, record.stored_bytes or record.restored_bytes or 0


class _Silence:
    async def note(self, text: str) -> None:
        """Says nothing to anybody."""
