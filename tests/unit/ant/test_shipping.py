"""When output counts as safe, and what becomes of lines that no broker takes."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from brokers.base import Message
from brokers.errors import BrokerRefusedError, MessageTooLargeError
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.base import Stream
from formicary.ant.logs import AttemptLog, LogShipper
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.logs import LogChunk
from formicary.ids import JobId

LIMIT_BYTES = 4000


class NarrowBroker(MemoryBroker):
    """A memory broker for small messages only."""

    refuses = False

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.refuses:
            raise BrokerRefusedError("memory://", "no rights")
        for message in messages:
            if len(message.body) > LIMIT_BYTES:
                raise MessageTooLargeError(message.topic, len(message.body), LIMIT_BYTES)
        await super().publish(messages)


@pytest.fixture
async def broker() -> AsyncIterator[NarrowBroker]:
    broker = NarrowBroker(MemoryServer())
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
def bus(broker: NarrowBroker) -> Bus:
    return Bus(broker, "test", SystemClock())


@pytest.fixture
async def shipper(bus: Bus) -> AsyncIterator[LogShipper]:
    shipper = LogShipper(bus, SystemClock(), 1_000_000)
    await shipper.start()
    yield shipper
    await shipper.stop()


def log_of(shipper: LogShipper) -> AttemptLog:
    return AttemptLog(shipper, (JobId("job"), 0, 1), ())


async def test_an_attempt_is_not_over_before_its_lines_outlive_the_process(bus: Bus, shipper: LogShipper) -> None:
    writer = await bus.subscribe([topics.LOGS], topics.LOG_WRITERS, "writer")
    log = log_of(shipper)
    await log.write(Stream.STDOUT, b"one\n")
    closing = asyncio.create_task(log.close())
    received = await writer.receive(10, 40.0)
    await asyncio.wait({closing}, timeout=0.05)
    assert not closing.done(), "in memory only"
    await writer.ack(received)
    await asyncio.wait_for(closing, 40)


async def test_output_whose_broker_refuses_it_is_never_said_to_be_safe(
    broker: NarrowBroker, shipper: LogShipper
) -> None:
    broker.refuses = True
    log = log_of(shipper)
    await log.write(Stream.STDOUT, b"one\n")
    closing = asyncio.create_task(log.close())
    with pytest.raises(BrokerRefusedError):
        await shipper.wait()
    await asyncio.wait({closing}, timeout=0.05)
    assert not closing.done()
    closing.cancel()


async def test_lines_that_no_broker_takes_are_told_in_their_place(bus: Bus, shipper: LogShipper) -> None:
    log = log_of(shipper)
    texts = ["short"] * 500 + ["x" * 5000] + ["short"] * 500
    await log.write(Stream.STDOUT, "".join(f"{text}\n" for text in texts).encode())
    writer = await bus.subscribe([topics.LOGS], topics.LOG_WRITERS, "writer")
    closing = asyncio.create_task(log.close())
    lines = []
    while not closing.done():
        received = await writer.receive(100, 0.05)
        lines += [
            line for item in received for event in item.events if isinstance(event, LogChunk) for line in event.lines
        ]
        await writer.ack(received)
    assert [line.seq for line in lines] == list(range(1, 1002))
    told = [(line.seq, line.stream) for line in lines if line.text != "short"]
    assert told == [(501, "system")]
    assert lines[500].text.startswith("1 line was dropped: a message of ")
