"""What a container writes while its log is slow, or takes nothing for a while."""

import asyncio

import pytest

from executors.base import Stream
from executors.testing import CollectingSink
from tests.engines import TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, spec, until

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
