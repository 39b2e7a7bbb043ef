"""The attempts that an ant holds: from acceptance until the broker has confirmed their result."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from enum import Enum, auto

from executors.base import Executor, Reason, Run
from formicary.ant.exchange import Exchange
from formicary.ant.shortcut import Shortcut
from formicary.events.ants import Held
from formicary.events.orders import Order
from formicary.events.tasks import TaskDispatched
from formicary.ids import Incarnation, JobId

#: Job, task number, attempt: the only identity of an attempt.
Key = tuple[JobId, int, int]


class Phase(Enum):
    """Where an assignment stands."""

    WAITING = auto()
    RUNNING = auto()
    #: Its result is in the outbox.
    ENDED = auto()


class Assignment:
    """One accepted attempt and how far it is. Owned by the ant's loop; plain slots, since there are many."""

    __slots__ = (
        "deadline",
        "exchange",
        "executor",
        "grace_s",
        "incarnation",
        "is_abandoned",
        "key",
        "order",
        "phase",
        "run",
        "shard",
        "shortcut",
        "started_at",
        "stop_reason",
        "trace",
        "transfer",
    )

    def __init__(self, dispatch: TaskDispatched, order: Order, executor: Executor) -> None:
        self.key: Key = (dispatch.job_id, dispatch.task_no, dispatch.attempt)
        self.shard = dispatch.shard
        self.incarnation: Incarnation = dispatch.incarnation
        self.trace = dispatch.trace
        self.order = order
        self.executor = executor
        self.phase = Phase.WAITING
        self.started_at: datetime | None = None
        self.run: Run | None = None
        #: Where its files go by URLs, once they do.
        self.exchange: Exchange | None = None
        #: By which its big files may go.
        self.shortcut: Shortcut | None = None
        #: Seconds of the loop's clock; None while no executor runs it.
        self.deadline: float | None = None
        self.stop_reason: Reason | None = None
        self.grace_s = 0.0
        #: The fetch or upload in progress, which a stop cancels.
        self.transfer: asyncio.Task[object] | None = None
        #: Its incarnation is over: whatever comes of it is reported to nobody.
        self.is_abandoned = False

    def held(self) -> Held:
        """Returns it as heartbeats name it."""
        job_id, task_no, attempt = self.key
        return Held(self.shard, job_id, task_no, attempt)


class Assignments:
    """All attempts held, by key."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Assignment] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Assignment]:
        return iter(list(self._by_key.values()))

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def get(self, key: Key) -> Assignment | None:
        """Returns the assignment, or None where it is not held."""
        return self._by_key.get(key)

    def add(self, assignment: Assignment) -> None:
        """Holds an assignment from now on."""
        self._by_key[assignment.key] = assignment

    def drop(self, key: Key) -> None:
        """Holds it no more; nothing happens where it is not held."""
        self._by_key.pop(key, None)

    def held(self) -> tuple[Held, ...]:
        """Returns all of them as heartbeats name them."""
        return tuple(assignment.held() for assignment in self._by_key.values())
