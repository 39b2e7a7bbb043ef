"""Interleavings on purpose: of all steps that could happen next, a seed chooses one, and it happens alone."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from formicary.artifacts.base import Stored
from formicary.artifacts.local import LocalStore
from formicary.model.holders import Holder, Uses
from formicary.store.references import References


class Inline(ThreadPoolExecutor):
    """Does at once what others do in a thread, so that a seed means the same every time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who waits
            future.set_exception(error)
        return future


class Turns:
    """Lets one step happen at a time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._waiting: list[asyncio.Future[None]] = []
        self._done = asyncio.Event()

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
            yield
        finally:
            self._done.set()

    async def play(self, actors: Sequence[Awaitable[None]]) -> None:
        """Runs all actors to their ends; raises the first error of one."""
        asyncio.get_running_loop().set_default_executor(Inline())
        tasks = [asyncio.ensure_future(actor) for actor in actors]
        try:
            while not all(task.done() for task in tasks):
                for _ in range(20):  # what follows from the last step may ask for a turn
                    await asyncio.sleep(0)
                if self._waiting:
                    self._done.clear()
                    self._waiting.pop(self.rng.randrange(len(self._waiting))).set_result(None)
                    await self._done.wait()
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            for task in tasks:
                task.cancel()


class SteppedStore(LocalStore):
    """The real store, each of its operations a step."""

    def __init__(self, root: Path, turns: Turns) -> None:
        super().__init__(root)
        self._turns = turns

    async def put(self, key: str, source: Path) -> Stored:
        async with self._turns.step():
            return await super().put(key, source)

    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        async with self._turns.step():
            await super().fetch(key, target, sha256)

    async def delete(self, key: str) -> None:
        async with self._turns.step():
            await super().delete(key)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        async with self._turns.step():
            keys = [key async for key in super().list(prefix)]
        for key in keys:
            yield key


class SteppedReferences(References):
    """The real rows, each statement a step."""

    def __init__(self, database: Any, turns: Turns) -> None:
        super().__init__(database)
        self._turns = turns

    async def uses(self, contents: Sequence[str], holders: Sequence[Holder]) -> Uses:
        async with self._turns.step():
            return await super().uses(contents, holders)

    async def expire(self, limit: int) -> list[str]:
        async with self._turns.step():
            return await super().expire(limit)
