"""A cache of a 200 MB tree, stored and restored as an ant does it, beside a plain copy of the tree."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
ROUNDS = 3


async def caches() -> list[Figure]:
    """Measures on a local store, in turns with plain copies."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        home = Path(folder)
        tree = home / "tree" / "deps"
        await asyncio.to_thread(make_tree, tree)
        store = make_store((home / "store").as_uri())
        await store.open()
        order = shell("true", cache=CachePolicy(key=os.urandom(4).hex(), paths=("deps",)), timeout_s=600.0)
        stored_s, size_bytes = await used(store, order, tree)
        copies, restores = [], []
        for number in range(ROUNDS):
            copies.append(await costed(copied(tree, home / f"copy{number}")))
            restores.append(await costed(used(store, order, None)))
        return _figures(stored_s, size_bytes, Cost.best(copies), Cost.best(restores))


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


def _figures(stored_s: float, size_bytes: int, copy: Cost, restore: Cost) -> list[Figure]:
    speed = f"{TREE_BYTES / 1e6 / restore.elapsed_s:.0f} MB/s of files; best of {ROUNDS}"
    tree = f"{FILES} files, 200 MB; best of {ROUNDS}"
    return [
        Figure("cache: stored", stored_s, "s", note=f"{size_bytes / 1e6:.0f} MB packed"),
        Figure("cache: restored", restore.elapsed_s, "s", note=speed),
        Figure("cache: restored, processor time", restore.cpu_s, "s"),
        Figure("cache: plain copy of the tree", copy.elapsed_s, "s", note=tree),
        Figure("cache: plain copy, processor time", copy.cpu_s, "s", note="its removal included"),
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
