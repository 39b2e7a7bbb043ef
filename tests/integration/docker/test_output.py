"""What a container writes while its log is slow, or takes nothing for a while."""

import asyncio

import pytest

from executors.base import Reason, Stream
from executors.testing import CollectingSink
from tests.engines import TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, MakeBench, spec, until
from tests.integration.docker.proxy import Proxy

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

#: More than the engine, pipes and sockets hold for a log that takes nothing, which is about 1.6 MB.
SIZE_BYTES = 2_800_000


class ClosedSink(CollectingSink):
    """Takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        """Takes a piece of output."""
        await self.opened.wait()
        await super().write(stream, data)


async def test_nothing_is_lost_of_a_container_that_ended_while_its_log_took_nothing(
    bench: Bench, engine: TestEngine
) -> None:
    sink = ClosedSink()
    run = await bench.start(spec(f"head -c {SIZE_BYTES} /dev/zero; printf err >&2; printf end"), sink)

    await until(lambda: any(each["State"] == "exited" for each in engine.containers()))
    sink.opened.set()
    outcome = await bench.executor.wait(run)
    await bench.executor.cleanup(run)

    assert outcome.is_success
    assert sink.text() == bytes(SIZE_BYTES) + b"end"
    assert sink.text(Stream.STDERR) == b"err"


async def test_output_that_breaks_off_is_taken_up_again_and_the_gap_is_told(
    engine: TestEngine, make_bench: MakeBench
) -> None:
    script = "trap 'echo saved; exit 0' TERM; while :; do echo tick; sleep 0.1; done"
    async with Proxy(engine.url) as proxy:
        bench, sink = await make_bench(docker_host=proxy.url), CollectingSink()
        run = await bench.start(spec(script), sink)
        await until(lambda: len(sink.pieces) > 5)  # by then the start was answered

        proxy.break_off()
        await until(lambda: b"broke off here" in sink.text(Stream.SYSTEM))
        count = len(sink.pieces)
        await until(lambda: len(sink.pieces) > count)
        await bench.executor.stop(run, 20, Reason.CANCELLED)
        await bench.executor.cleanup(run)
        await bench.executor.close()

    assert sink.text().endswith(b"tick\nsaved\n")


async def test_a_container_that_closes_its_output_and_runs_on_left_no_gap(bench: Bench) -> None:
    ended = await bench.run(spec("echo said", "exec >&- 2>&-; sleep 3"))

    assert (ended.text, ended.notes) == ("said\n", "")
