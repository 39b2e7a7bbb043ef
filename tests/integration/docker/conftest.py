"""A real engine, a DOCKER executor on it, and short words for what the tests do a lot."""

import asyncio
import itertools
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from executors.base import Attempt, Outcome, Run, Stream
from executors.docker.executor import DockerExecutor
from executors.options import ExecutorOptions
from executors.specs import ContainerSpec, DockerSpec
from executors.testing import CollectingSink, RecordingGuard, make_attempt
from tests.engines import IMAGE, TestEngine, running_engine

#: Longest wait for what must come, in seconds; only a failing test waits it out.
PATIENCE_S = 40.0


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def leaves_nothing(engine: TestEngine) -> Iterator[None]:
    """Demands that the test leaves neither container nor network behind."""
    yield
    assert engine.containers() == []
    assert engine.networks() == []


@dataclass
class Ended:
    """An attempt that is over, its files brought back."""

    outcome: Outcome
    sink: CollectingSink
    attempt: Attempt

    @property
    def text(self) -> str:
        """What the attempt wrote to its standard output."""
        return self.sink.text().decode()

    @property
    def notes(self) -> str:
        """What Formicary itself said in the attempt's log."""
        return self.sink.text(Stream.SYSTEM).decode()

    @property
    def folder(self) -> Path:
        """The attempt's working directory."""
        return self.attempt.folder.path()


def spec(*script: str, container: dict[str, Any] | None = None, **fields: Any) -> DockerSpec:
    """Returns a spec of the image that every engine of the tests has."""
    return DockerSpec(container=ContainerSpec(**{"image": IMAGE, **(container or {})}), script=script, **fields)


@dataclass
class Bench:
    """Starts attempts on one executor."""

    executor: DockerExecutor
    folder: Path
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def attempt(self, docker: DockerSpec, guard: RecordingGuard | None = None, **environment: str) -> Attempt:
        """Returns an attempt of its own number and folder."""
        number = next(self.numbers)
        marks = {"FORMICARY_ANT": "ant-1@1", **environment}
        return make_attempt(docker, self.folder / str(number) / "w", number=number, environment=marks, guard=guard)

    async def start(
        self, docker: DockerSpec, sink: CollectingSink | None = None, guard: RecordingGuard | None = None
    ) -> Run:
        """Starts an attempt."""
        return await self.executor.start(self.attempt(docker, guard), sink or CollectingSink())

    async def run(
        self, docker: DockerSpec, *paths: str, attempt: Attempt | None = None, patience_s: float = PATIENCE_S
    ) -> Ended:
        """Runs an attempt to its end and brings its results back, and what the paths name."""
        sink = CollectingSink()
        attempt = attempt or self.attempt(docker)
        run = await self.executor.start(attempt, sink)
        try:
            async with asyncio.timeout(patience_s):
                outcome = await self.executor.wait(run)
                await self.executor.collect(run, paths, with_results=True)
        except BaseException as exc:
            exc.add_note(sink.text(Stream.SYSTEM).decode())
            raise
        finally:
            await self.executor.cleanup(run)
        return Ended(outcome, sink, attempt)


MakeBench = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def make_bench(engine: TestEngine, tmp_path: Path) -> AsyncIterator[MakeBench]:
    """Returns a function that makes a bench whose executor has other options."""
    made: list[DockerExecutor] = []

    async def make(**options: Any) -> Bench:
        settings = {"docker_host": engine.url, "docker_logins": tmp_path / "none.json", **options}
        executor = DockerExecutor(ExecutorOptions(**settings))
        made.append(executor)
        await executor.check()
        return Bench(executor, tmp_path)

    yield make
    for executor in made:
        await executor.close()


@pytest.fixture
async def bench(make_bench: MakeBench) -> Bench:
    return await make_bench()


async def until(is_so: Callable[[], object], pause_s: float = 0.02) -> None:
    """Returns when something is so that nobody tells us of."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 - an engine of its own
            await asyncio.sleep(pause_s)


def peak_bytes() -> int:
    """Returns the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
