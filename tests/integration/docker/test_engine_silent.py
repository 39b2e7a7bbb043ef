"""An engine that falls silent: it hangs, or the way to it swallows everything. Connections stay open all the same."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from executors.base import Reason, Run, Stream
from executors.errors import CollectFailedError, ExecutorLostError
from executors.testing import CollectingSink
from tests.engines import GIVEN, TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, MakeBench, spec, until
from tests.integration.docker.proxy import Proxy

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

#: How long the ant puts up with silence here, in seconds, and how long it then waits for the engine.
SILENCE_S, PATIENCE_S = 2.0, 0.5
#: What must have ended by then has noticed the silence: no other limit is as short.
SOON_S = 30.0


@pytest.fixture
async def proxy(engine: TestEngine) -> AsyncIterator[Proxy]:
    async with Proxy(engine.url) as proxy:
        yield proxy


@pytest.fixture
async def bench(proxy: Proxy, make_bench: MakeBench, engine: TestEngine) -> AsyncIterator[Bench]:
    bench = await make_bench(docker_host=proxy.url, docker_silence_s=SILENCE_S, docker_patience_s=PATIENCE_S)
    yield bench
    proxy.speak()
    await until(lambda: not engine.containers())  # what was owed is paid as soon as the engine answers


async def started(bench: Bench, *script: str) -> Run:
    """Returns an attempt whose container runs."""
    sink = CollectingSink()
    run = await bench.start(spec("echo ready", *script), sink)
    await sink.first_write.wait()
    return run


async def test_a_silent_engine_ends_attempts_that_run_that_are_stopped_and_that_begin(
    bench: Bench, proxy: Proxy
) -> None:
    running, stopped = await started(bench, "sleep 300"), await started(bench, "sleep 300")
    proxy.fall_silent()
    beginning = await bench.start(spec("sleep 300"))
    began_s = time.monotonic()

    await bench.executor.stop(stopped, 0.1, Reason.CANCELLED)

    for run in (running, stopped, beginning):
        with pytest.raises(ExecutorLostError, match="no sign of life"):
            await bench.executor.wait(run)
        await bench.executor.cleanup(run)
    assert time.monotonic() - began_s < SOON_S


async def test_a_stop_ends_an_attempt_that_begins_on_a_silent_engine(bench: Bench, proxy: Proxy) -> None:
    proxy.fall_silent()
    run = await bench.start(spec("sleep 300"))

    async with asyncio.timeout(SOON_S):
        await bench.executor.stop(run, 60, Reason.TIMED_OUT)

    assert (await bench.executor.wait(run)).reason is Reason.TIMED_OUT
    await bench.executor.cleanup(run)


async def test_an_engine_that_speaks_again_in_time_costs_an_attempt_nothing(
    proxy: Proxy, make_bench: MakeBench
) -> None:
    bench = await make_bench(docker_host=proxy.url, docker_silence_s=SILENCE_S, docker_patience_s=SOON_S)
    sink = CollectingSink()
    run = await bench.start(spec("sleep 1; echo ready; sleep 1; echo done"), sink)
    await sink.first_write.wait()
    proxy.fall_silent()
    await until(lambda: b"no sign of life" in sink.text(Stream.SYSTEM))

    proxy.speak()

    assert (await bench.executor.wait(run)).is_success
    await bench.executor.cleanup(run)
    assert sink.text() == b"ready\ndone\n"


async def test_files_that_a_silent_engine_does_not_give_are_an_error(bench: Bench, proxy: Proxy) -> None:
    run = await bench.start(spec("echo r > r"))
    assert (await bench.executor.wait(run)).is_success
    proxy.fall_silent()

    async with asyncio.timeout(SOON_S):
        with pytest.raises(CollectFailedError, match="no sign of life"):
            await bench.executor.collect(run, ("r",), with_results=True)
        await bench.executor.cleanup(run)


async def test_a_busy_task_on_a_quiet_way_is_no_silence(proxy: Proxy, make_bench: MakeBench) -> None:
    bench = await make_bench(docker_host=proxy.url, docker_silence_s=2 * SILENCE_S)

    ended = await bench.run(spec(f"sleep {2.5 * SILENCE_S}; echo done"))

    assert (ended.outcome.is_success, ended.text, ended.notes) == (True, "done\n", "")


@pytest.mark.skipif(bool(GIVEN), reason="the engine given is not ours to stop")
async def test_an_engine_that_hangs_ends_the_attempt(make_bench: MakeBench, engine: TestEngine) -> None:
    bench = await make_bench(docker_silence_s=SILENCE_S, docker_patience_s=PATIENCE_S)
    run = await started(bench, "sleep 300")
    with engine.paused():
        async with asyncio.timeout(SOON_S):
            with pytest.raises(ExecutorLostError, match="no sign of life"):
                await bench.executor.wait(run)
            await bench.executor.cleanup(run)
    await until(lambda: not engine.containers())
