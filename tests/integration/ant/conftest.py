"""An ant on the memory broker, and a scripted owner that plays the queen."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from brokers.base import START, Edge, Position
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.options import ExecutorOptions
from executors.registry import make_executors
from executors.specs import DummySpec, PythonSpec, ShellSpec
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus, Outgoing
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.base import Event
from formicary.events.logs import LogChunk
from formicary.events.orders import Order
from formicary.events.tasks import TaskCancelRequested, TaskDispatched, TaskFinished, TaskRecalled
from formicary.ids import AntId, Incarnation, new_job_id

T = TypeVar("T", bound=Event)
SHARD = 3


class Owner:
    """Publishes dispatches to one ant and reads what it reports, as the owner of ``SHARD`` does."""

    def __init__(self, bus: Bus, incarnation: Callable[[], Incarnation]) -> None:
        self._bus = bus
        self._incarnation = incarnation
        self._numbers = itertools.count(1)
        self._position: Position | Edge = START
        self._logs_position: Position | Edge = START
        self._reports: list[Event] = []
        self._lines: list[tuple[str, int, str, str]] = []
        self.job_id = new_job_id()
        self.epoch = 1

    def dispatch(self, order: Order, task_no: int = 0, attempt: int = 1, **changes: Any) -> TaskDispatched:
        dispatch = TaskDispatched(
            job_id=self.job_id,
            task_no=task_no,
            attempt=attempt,
            shard=SHARD,
            epoch=self.epoch,
            number=next(self._numbers),
            incarnation=self._incarnation(),
            order=msgspec.Raw(msgspec.msgpack.encode(order)),
        )
        return msgspec.structs.replace(dispatch, **changes)

    async def send(self, *events: Event) -> None:
        topic = topics.inbox(AntId("ant-1"), False)
        await self._bus.publish([Outgoing(topic, "ant-1", event) for event in events])

    async def run(self, order: Order, **changes: Any) -> TaskFinished:
        """Dispatches and returns how it ended."""
        dispatch = self.dispatch(order, **changes)
        await self.send(dispatch)
        return await self.finished(dispatch.task_no)

    async def finished(self, task_no: int = 0) -> TaskFinished:
        return await self.report(TaskFinished, task_no)

    async def report(self, kind: type[T], task_no: int = 0) -> T:
        """Waits for a report of this kind about a task."""
        while True:
            for event in self._reports:
                if isinstance(event, kind) and getattr(event, "task_no", None) == task_no:
                    return event
            await self.read()

    async def read(self) -> list[Event]:
        """Reads on; returns everything reported so far."""
        for packet in await self._bus.read(topics.results(SHARD), self._position, 1000, 5.0):
            self._position = packet.position
            self._reports.extend(packet.events)
        return self._reports

    @property
    def reports(self) -> list[Event]:
        return self._reports

    async def lines(self) -> list[tuple[str, int, str, str]]:
        """Returns the log so far: job, task number, stream, text."""
        for packet in await self._bus.read(topics.LOGS, self._logs_position, 10_000, 0.01):
            self._logs_position = packet.position
            for event in packet.events:
                if isinstance(event, LogChunk):
                    self._lines += [(event.job_id, event.task_no, line.stream, line.text) for line in event.lines]
        return self._lines

    def cancel(self, task_no: int = 0, attempt: int = 1, grace_s: float = 10.0) -> TaskCancelRequested:
        return TaskCancelRequested(
            job_id=self.job_id,
            task_no=task_no,
            attempt=attempt,
            shard=SHARD,
            epoch=self.epoch,
            incarnation=self._incarnation(),
            grace_s=grace_s,
        )

    def recall(self, task_no: int = 0, attempt: int = 1) -> TaskRecalled:
        return TaskRecalled(
            job_id=self.job_id,
            task_no=task_no,
            attempt=attempt,
            shard=SHARD,
            epoch=self.epoch,
            incarnation=self._incarnation(),
        )


def shell(*script: str, **changes: Any) -> Order:
    return order("SHELL", ShellSpec(script=script), **changes)


def python(function: str, *args: Any, **changes: Any) -> Order:
    return order("PYTHON", PythonSpec(function=function, args=args), **changes)


def dummy(**spec: Any) -> Order:
    return order("DUMMY", DummySpec(**spec))


def order(method: str, spec: Any, **changes: Any) -> Order:
    return Order(**{"job_type": "demo", "task_type": "t", "method": method, "spec": spec, "timeout_s": 60.0, **changes})


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    yield Bus(broker, "test", SystemClock())
    await broker.close()


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "artifacts")
    await store.open()
    return store


AntMaker = Callable[..., Awaitable[Ant]]


@pytest.fixture
async def make_ant(bus: Bus, store: LocalStore, tmp_path: Path) -> AsyncIterator[AntMaker]:
    ants: list[Ant] = []

    async def make(options: ExecutorOptions | None = None, **config: Any) -> Ant:
        executors = make_executors(("SHELL", "PYTHON", "DUMMY"), options)
        settings = AntConfig(id=AntId("ant-1"), home=tmp_path / "home", **config)
        ant = Ant(bus, executors, store, settings, SystemClock())
        ants.append(ant)
        await ant.start()
        return ant

    yield make
    await asyncio.gather(*(ant.stop() for ant in ants))


@pytest.fixture
async def ant(make_ant: AntMaker) -> Ant:
    return await make_ant(slots=4)


@pytest.fixture
def owner(bus: Bus, ant: Ant) -> Owner:
    return Owner(bus, lambda: ant.registration.incarnation)
