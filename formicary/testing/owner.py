"""A scripted owner: plays the queen for one ant, in tests of ants without queens."""

import itertools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from brokers.base import START, Edge, Position
from executors.specs import DummySpec, PythonSpec, ShellSpec
from formicary.bus import Bus, Outgoing
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, HeartbeatsSeen
from formicary.events.base import Event
from formicary.events.logs import LogChunk
from formicary.events.orders import Order
from formicary.events.tasks import TaskCancelRequested, TaskDispatched, TaskFinished, TaskRecalled
from formicary.ids import AntId, Incarnation, QueenId, ant_of, new_job_id, shard_of

T = TypeVar("T", bound=Event)

#: The shard whose owner it plays.
SHARD: Final = 3


class ScriptedOwner:
    """Publishes dispatches to one ant and reads what it reports, as the owner of ``SHARD`` does."""

    def __init__(self, bus: Bus, incarnation: Callable[[], Incarnation]) -> None:
        self._bus = bus
        self._incarnation = incarnation
        self._numbers = itertools.count(1)
        self._position: Position | Edge = START
        self._logs_position: Position | Edge = START
        self._reports: list[Event] = []
        self._lines: list[tuple[str, int, str, str]] = []
        self.job_id = next(job_id for job_id in iter(new_job_id, None) if shard_of(job_id, 16) == SHARD)
        self.epoch = 1

    def dispatch(self, work: Order, task_no: int = 0, attempt: int = 1, **changes: Any) -> TaskDispatched:
        """Returns a dispatch, numbered; ``changes`` replace its fields. Each task number has a task type of its own."""
        work = msgspec.structs.replace(work, task_type=f"{work.task_type}{task_no}")
        dispatch = TaskDispatched(
            job_id=self.job_id,
            task_no=task_no,
            attempt=attempt,
            shard=SHARD,
            epoch=self.epoch,
            number=next(self._numbers),
            incarnation=self._incarnation(),
            order=msgspec.Raw(msgspec.msgpack.encode(work)),
        )
        return msgspec.structs.replace(dispatch, **changes)

    async def send(self, *events: Event) -> None:
        """Puts events into the ant's inbox."""
        ant_id: AntId = ant_of(self._incarnation())
        await self._bus.publish([Outgoing(topics.inbox(ant_id, False), ant_id, event) for event in events])

    async def run(self, order: Order, **changes: Any) -> TaskFinished:
        """Dispatches and returns how it ended."""
        dispatch = self.dispatch(order, **changes)
        await self.send(dispatch)
        return await self.finished(dispatch.task_no)

    async def finished(self, task_no: int = 0) -> TaskFinished:
        """Waits for the end of a task."""
        return await self.report(TaskFinished, task_no)

    async def report(self, kind: type[T], task_no: int = 0) -> T:
        """Waits for a report of this kind about a task."""
        while True:
            for event in self._reports:
                if isinstance(event, kind) and getattr(event, "task_no", None) == task_no:
                    return event
            await self.read()

    async def read(self, timeout_s: float = 5.0) -> list[Event]:
        """Reads on; returns everything reported so far."""
        for packet in await self._bus.read(topics.results(SHARD), self._position, 1000, timeout_s):
            self._position = packet.position
            self._reports.extend(packet.events)
        return self._reports

    @property
    def reports(self) -> list[Event]:
        """Returns everything read so far."""
        return self._reports

    async def lines(self) -> list[tuple[str, int, str, str]]:
        """Returns the log so far: job, task number, stream, text."""
        for packet in await self._bus.read(topics.LOGS, self._logs_position, 10_000, 0.01):
            self._logs_position = packet.position
            for event in packet.events:
                if isinstance(event, LogChunk):
                    self._lines += [(event.job_id, event.task_no, line.stream, line.text) for line in event.lines]
        return self._lines

    async def answer(self) -> None:
        """Answers heartbeats until cancelled, so that the ant holds the lease of ``SHARD``."""
        subscription = await self._bus.subscribe([topics.ANTS], None, "owner")
        try:
            while True:
                for item in await subscription.receive(100, 5.0):
                    for event in item.events:
                        if isinstance(event, AntHeartbeat):
                            await self.say(sequences={event.incarnation: event.sequence})
        finally:
            await subscription.close()

    async def say(self, **fields: Any) -> None:
        """Sends ``HeartbeatsSeen`` with these fields."""
        base = {"queen_id": QueenId("queen"), "epochs": {SHARD: self.epoch}, "sequences": {}}
        await self._bus.publish([Outgoing(topics.ANSWERS, "queen", HeartbeatsSeen(**{**base, **fields}))])

    def cancel(self, task_no: int = 0, attempt: int = 1, grace_s: float = 10.0) -> TaskCancelRequested:
        """Returns a request to stop an attempt."""
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
        """Returns a request to give a waiting attempt back."""
        return TaskRecalled(
            job_id=self.job_id,
            task_no=task_no,
            attempt=attempt,
            shard=SHARD,
            epoch=self.epoch,
            incarnation=self._incarnation(),
        )


def shell(*script: str, **changes: Any) -> Order:
    """Returns the order of a script."""
    return order("SHELL", ShellSpec(script=script), **changes)


def python(function: str, *args: Any, **changes: Any) -> Order:
    """Returns the order of a function call."""
    return order("PYTHON", PythonSpec(function=function, args=args), **changes)


def dummy(**spec: Any) -> Order:
    """Returns an order for the strict dummy."""
    return order("DUMMY", DummySpec(**spec))


def order(method: str, spec: Any, **changes: Any) -> Order:
    """Returns an order; ``changes`` are more of its fields."""
    return Order(**{"job_type": "demo", "task_type": "t", "method": method, "spec": spec, "timeout_s": 60.0, **changes})
