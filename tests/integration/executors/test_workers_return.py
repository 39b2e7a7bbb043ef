"""The reference workers come back to an ant that was away."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executors.base import Offer, Run
from executors.errors import ExecutorLostError
from executors.options import ExecutorOptions
from executors.specs import WebsocketSpec
from executors.testing import CollectingSink, make_attempt
from executors.websocket import WebsocketExecutor

WORKERS = Path(__file__).parents[3] / "docs" / "examples" / "workers"
COMMANDS = {
    "python": [sys.executable, str(WORKERS / "python" / "count_words.py")],
    "node": ["node", str(WORKERS / "javascript" / "count-words.mjs")],
}
#: What anything may take on a machine that does other things too, in seconds.
PATIENCE_S = 60.0


class Ant:
    """What an ant is for workers, started again and again on one port."""

    def __init__(self) -> None:
        self._port = 0
        self.executor = WebsocketExecutor()
        self._offers: asyncio.Queue[tuple[Offer, ...]] = asyncio.Queue()

    async def start(self) -> str:
        """Listens; returns the address for workers."""
        self.executor = WebsocketExecutor(ExecutorOptions(workers_listen=("127.0.0.1", self._port)))
        self.executor.watch_offers(self._offers.put_nowait)
        await self.executor.check()
        self._port = self.executor.port
        return f"ws://127.0.0.1:{self._port}/v1/workers"

    async def offered(self) -> None:
        """Returns when a worker is there."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self._offers.get():
                pass

    async def begin(self, folder: Path, number: int, spec: WebsocketSpec) -> Run:
        """Starts an attempt."""
        return await self.executor.start(make_attempt(spec, folder, number=number), CollectingSink())


@pytest.fixture(params=COMMANDS)
async def ant(request: pytest.FixtureRequest) -> AsyncIterator[Ant]:
    """An ant with a worker."""
    ant = Ant()
    environment = {"PATH": os.environ["PATH"]}
    worker = await asyncio.create_subprocess_exec(*COMMANDS[request.param], await ant.start(), env=environment)
    await ant.offered()
    yield ant
    await ant.executor.close()
    worker.kill()
    await worker.wait()


async def test_a_worker_comes_back_and_drops_what_it_had(ant: Ant, tmp_path: Path) -> None:
    sink = CollectingSink()
    spec = WebsocketSpec(worker_method="count-down", payload={"from": 1000})
    lost = await ant.executor.start(make_attempt(spec, tmp_path), sink)
    async with asyncio.timeout(PATIENCE_S):
        await sink.first_write.wait()

    await ant.executor.close()
    with pytest.raises(ExecutorLostError):
        await ant.executor.wait(lost)
    await ant.start()
    await ant.offered()

    sizes = (1, 50, 30_000, 100_000)
    specs = [WebsocketSpec(worker_method="count-words", payload={"text": "a bb " * size}) for size in sizes]
    runs = [await ant.begin(tmp_path, number, spec) for number, spec in enumerate(specs, start=2)]
    async with asyncio.timeout(PATIENCE_S):
        outcomes = [await ant.executor.wait(run) for run in runs]
    assert [outcome.outputs for outcome in outcomes] == [{"count": 2 * size, "longest": "bb"} for size in sizes]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
async def test_a_worker_that_is_given_no_address_ends_with_a_sentence(command: list[str]) -> None:
    worker = await asyncio.create_subprocess_exec(*command, "nowhere", stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE_S):
        _, told = await worker.communicate()
    assert worker.returncode == 1
    assert told.decode().count("\n") == 1, told
