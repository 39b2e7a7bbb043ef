"""An engine that goes away while containers run."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from executors.errors import ExecutorError, ExecutorLostError
from executors.testing import CollectingSink
from tests.engines import GIVEN, TestEngine, needs_own_engine, running_engine
from tests.integration.docker.conftest import MakeBench, spec, until

pytestmark = [needs_own_engine, pytest.mark.skipif(bool(GIVEN), reason="the engine given is not ours to stop")]


@pytest.fixture
def engine() -> Iterator[TestEngine]:
    """An engine of the test's own, which it may stop."""
    with running_engine() as engine:
        yield engine


async def test_an_engine_that_comes_back_without_the_container_is_an_error_that_says_so(
    make_bench: MakeBench, engine: TestEngine
) -> None:
    bench = await make_bench()
    sink = CollectingSink()
    run = await bench.start(spec("echo ready", "sleep 300"), sink)
    await sink.first_write.wait()

    await asyncio.to_thread(engine.stop, "--signal", "KILL")
    await asyncio.to_thread(engine.start)

    async with asyncio.timeout(60):
        with pytest.raises(ExecutorLostError, match="went away"):
            await bench.executor.wait(run)
    await bench.executor.cleanup(run)
    assert engine.containers() == []


async def test_an_engine_that_stays_away_is_an_error_and_what_it_ran_is_dead(
    make_bench: MakeBench, engine: TestEngine
) -> None:
    bench = await make_bench(docker_patience_s=1.0)
    sink = CollectingSink()
    run = await bench.start(spec("echo ready", "sleep 300"), sink)
    await sink.first_write.wait()
    (container,) = engine.containers()
    pid = engine.call("GET", f"/containers/{container['Id']}/json")["State"]["Pid"]

    await asyncio.to_thread(engine.stop, "--signal", "KILL")
    began_s = time.monotonic()
    async with asyncio.timeout(60):
        with pytest.raises(ExecutorLostError, match="did not come back within 1 s"):
            await bench.executor.wait(run)
        await bench.executor.cleanup(run)
    assert time.monotonic() - began_s < 30
    assert not _runs(pid)
    with pytest.raises(ExecutorError, match="lost"):
        await bench.run(spec("true"))

    await asyncio.to_thread(engine.start)
    await until(lambda: engine.containers() == [])  # what was owed is paid as soon as the engine is there


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a path of the kernel
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
