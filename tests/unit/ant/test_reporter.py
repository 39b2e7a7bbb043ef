"""The outbox: held until confirmed, one publish per flush, and always some result."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from brokers.base import START, Message
from brokers.errors import BrokerUnavailableError
from brokers.memory import MAX_MESSAGE_BYTES, MemoryBroker
from brokers.memory_server import MemoryServer
from executors.dummy import DummyExecutor
from executors.specs import DummySpec
from formicary.ant.assignments import Assignment, Assignments
from formicary.ant.reporter import End, Reporter
from formicary.ant.slots import Slots
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.base import Event
from formicary.events.orders import Order
from formicary.events.tasks import TaskDispatched, TaskFinished, TaskStarted
from formicary.ids import Incarnation, JobId

SHARD = 2


class UnsteadyBroker(MemoryBroker):
    """A memory broker whose next publishes fail as a lost server's do."""

    failures = 0
    publishes = 0

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.has_failed = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.failures:
            self.failures -= 1
            self.has_failed.set()
            raise BrokerUnavailableError("memory://", "lost")
        self.publishes += 1
        await super().publish(messages)


@pytest.fixture
async def broker() -> AsyncIterator[UnsteadyBroker]:
    broker = UnsteadyBroker(MemoryServer())
    await broker.open()
    yield broker
    await broker.close()


class Desk:
    """A reporter with what it needs."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.bus = Bus(broker, "test", SystemClock())
        self.held = Assignments()
        self.reporter = Reporter(self.bus, SystemClock(), self.held, Slots(4, 4))

    def accept(self, number: int = 0) -> Assignment:
        dispatch = TaskDispatched(
            job_id=JobId("job"),
            task_no=number,
            attempt=1,
            shard=SHARD,
            epoch=1,
            number=number,
            incarnation=Incarnation("ant@1"),
            order=msgspec.Raw(b"\xc0"),
        )
        order = Order(job_type="j", task_type="t", method="DUMMY", spec=DummySpec(), timeout_s=1.0)
        assignment = Assignment(dispatch, order, DummyExecutor())
        assignment.started_at = datetime(2026, 1, 1, tzinfo=UTC)
        self.held.add(assignment)
        return assignment

    async def said(self) -> list[Event]:
        packets = await self.bus.read(topics.results(SHARD), START, 1000, 0.0)
        return [event for packet in packets for event in packet.events]


def success(outputs: dict[str, Any] | None = None) -> End:
    return End("exited", 0, True, None, None, outputs)


async def test_an_attempt_is_held_until_its_result_is_confirmed(broker: UnsteadyBroker) -> None:
    desk = Desk(broker)
    assignment = desk.accept()
    desk.reporter.ended(assignment, success())
    broker.failures = 1
    flush = asyncio.create_task(desk.reporter.flush_once())
    await broker.has_failed.wait()
    assert assignment.key in desk.held
    await flush
    assert assignment.key not in desk.held
    assert len(await desk.said()) == 1


async def test_all_that_ended_meanwhile_leaves_in_one_publish(broker: UnsteadyBroker) -> None:
    desk = Desk(broker)
    for number in range(100):
        desk.reporter.ended(desk.accept(number), success())
    await desk.reporter.flush_once()
    assert broker.publishes == 1
    assert len(await desk.said()) == 100


async def test_the_start_of_a_long_attempt_is_said_and_that_of_a_short_one_is_not(broker: UnsteadyBroker) -> None:
    desk = Desk(broker)
    await desk.reporter.start()
    short, long = desk.accept(0), desk.accept(1)
    desk.reporter.begun(short)
    desk.reporter.begun(long)
    desk.reporter.ended(short, success())
    await desk.reporter.drained()
    assert [(type(event), getattr(event, "task_no", None)) for event in await desk.said()] == [
        (TaskFinished, 0),
        (TaskStarted, 1),
    ]
    await desk.reporter.stop()


@pytest.mark.parametrize("value", ["\ud800", 2**70, "x" * MAX_MESSAGE_BYTES])
async def test_a_result_that_cannot_travel_becomes_a_failure_and_harms_no_other(
    broker: UnsteadyBroker, value: Any
) -> None:
    desk = Desk(broker)
    desk.reporter.ended(desk.accept(0), success({"good": 1}))
    desk.reporter.ended(desk.accept(1), success({"bad": value}))
    await desk.reporter.flush_once()
    good, bad = await desk.said()
    assert isinstance(good, TaskFinished)
    assert isinstance(bad, TaskFinished)
    assert (good.is_success, good.outputs) == (True, {"good": 1})
    assert (bad.is_success, bad.error_code, bad.outputs) == (False, "ERR_VALIDATION", None)
    assert len(desk.held) == 0


async def test_nothing_is_said_about_an_abandoned_attempt(broker: UnsteadyBroker) -> None:
    desk = Desk(broker)
    assignment = desk.accept()
    assignment.is_abandoned = True
    desk.reporter.ended(assignment, success())
    await desk.reporter.flush_once()
    assert await desk.said() == []
    assert len(desk.held) == 0


async def test_a_message_is_cleaned_of_what_no_store_takes(broker: UnsteadyBroker) -> None:
    desk = Desk(broker)
    desk.reporter.ended(desk.accept(), End("error", error_code="ERR_EXECUTOR", error_message="a\0b\ud800c"))
    await desk.reporter.flush_once()
    (end,) = await desk.said()
    assert isinstance(end, TaskFinished)
    assert end.error_message == "ab?c"
