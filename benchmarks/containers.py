"""DOCKER tasks beside the bare engine: what a container costs more as a task, through ant, warden, log and files.

The bare engine is plain ``aiodocker``: make, start, wait, remove. Both take turns in one process on one engine, so that
whatever else the machine does meanwhile touches both.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiodocker import Docker

from benchmarks.report import Figure
from benchmarks.servers import served
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.options import ExecutorOptions
from executors.registry import make_executors
from executors.specs import ContainerSpec, DockerSpec
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Order
from formicary.ids import AntId
from formicary.model.definition import ArtifactsPolicy
from formicary.testing.owner import ScriptedOwner, order

IMAGE = "busybox:local"
ROUNDS = 30
WARM_UP = 3
CROWD = 20
#: How much longer than on the bare engine a task may take, in milliseconds.
GOAL_MS = 60.0

Run = Callable[[int], Awaitable[None]]


async def containers() -> list[Figure]:
    """Measures one after the other in turns, and a crowd at once."""
    async with served("docker") as urls, _folder() as folder:
        url = urls["DOCKER_HOST"]
        async with _bare(url) as bare, _ant(url, folder) as run:
            plain, with_files = _task(run, _order("true")), _task(run, _filed())
            kinds = {"bare": bare, "task": plain, "task with files": with_files}
            taken = await _in_turns(kinds)
            bare_crowd_s = await _at_once(bare, ROUNDS * 10)
            task_crowd_s = await _at_once(plain, ROUNDS * 10)
    return _figures(taken, bare_crowd_s, task_crowd_s)


def _figures(taken: dict[str, list[float]], bare_crowd_s: float, task_crowd_s: float) -> list[Figure]:
    bare_ms, task_ms, filed_ms = (statistics.median(each) * 1000 for each in taken.values())
    note = f"median of {ROUNDS}, in turns"
    return [
        Figure("docker: bare engine, make, start, wait, remove", bare_ms, "ms", note=note),
        Figure("docker: no-op task", task_ms, "ms", note=note),
        Figure("docker: task beyond the bare engine", task_ms - bare_ms, "ms", GOAL_MS, is_ceiling=True),
        Figure(
            "docker: task with a result beyond the bare engine", filed_ms - bare_ms, "ms", note="one file comes out"
        ),
        Figure(f"docker: {CROWD} at once, bare engine", bare_crowd_s, "s"),
        Figure(f"docker: {CROWD} at once, tasks", task_crowd_s, "s"),
    ]


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        yield Path(folder)


async def _in_turns(kinds: dict[str, Run]) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(WARM_UP + ROUNDS):
        for name, run in kinds.items():
            start = time.perf_counter()
            await run(number)
            if number >= WARM_UP:
                taken[name].append(time.perf_counter() - start)
    return taken


async def _at_once(run: Run, first: int) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(run(first + number) for number in range(CROWD)))
    return time.perf_counter() - start


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Run]:
    connector = aiohttp.UnixConnector(url.removeprefix("unix://"), limit=0)
    docker = Docker("unix://localhost", connector=connector)

    async def run(_: int) -> None:
        container = await docker.containers.create({"Image": IMAGE, "Cmd": ["sh", "-c", "true"]})
        await container.start()
        await container.wait()
        await container.delete(force=True)

    yield run
    await docker.close()
    await connector.close()


RunOrder = Callable[[Order], Awaitable[None]]


def _task(run: RunOrder, what: Order) -> Run:
    return lambda _: run(what)


def _order(*script: str) -> Order:
    return order("DOCKER", DockerSpec(container=ContainerSpec(image=IMAGE), script=script))


def _filed() -> Order:
    spec = DockerSpec(container=ContainerSpec(image=IMAGE), script=("echo x > x",))
    return order("DOCKER", spec, artifacts=ArtifactsPolicy(paths=("x",)))


@asynccontextmanager
async def _ant(url: str, folder: Path) -> AsyncIterator[RunOrder]:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "bench", SystemClock())
    store = LocalStore(folder / "store")
    await store.open()
    config = AntConfig(id=AntId("bench"), home=folder, slots=CROWD, engine_url=url)
    executors = make_executors(("DOCKER",), ExecutorOptions(docker_host=url))
    ant = Ant(bus, executors, store, config, SystemClock())
    await ant.start()
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    count = 0

    async def run(what: Order) -> None:
        nonlocal count
        count += 1
        end = await owner.run(what, task_no=count)
        if not end.is_success:
            raise AssertionError(f"the task failed: {end.error_message}")

    yield run
    await ant.stop()
    await broker.close()
