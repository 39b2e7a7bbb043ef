"""The jobs and shards that this queen holds in memory."""

from collections.abc import Iterator
from typing import NamedTuple

from formicary.events.base import Event
from formicary.ids import Incarnation, JobId
from formicary.model.states import JobState, TaskState
from formicary.queen.supervisor.program import Program
from formicary.states.cells import TaskCell
from formicary.states.run import JobRun
from formicary.store.rows import JobRecord
from formicary.template.context import JobScope

AttemptKey = tuple[JobId, int, int]
"""Job, task number, attempt: the only identity of an execution."""


class Receipt:
    """Says of one batch whether it is committed. Whatever follows from the batch may happen only then."""

    __slots__ = ("is_committed",)

    def __init__(self) -> None:
        self.is_committed = False


class Dispatch:
    """An attempt that is with an ant, dispatched in the present epoch by the batch of ``receipt``.

    ``is_confirmed``: the ant showed that it has it. Until then every sweep that finds it older than a third of a
    lease sends ``event`` again. ``is_recalled``: it was asked back, for an ant that has free slots.
    """

    __slots__ = ("event", "incarnation", "is_confirmed", "is_recalled", "receipt", "sent_at")

    def __init__(self, event: Event, incarnation: Incarnation, sent_at: float, receipt: Receipt) -> None:
        self.event = event
        self.incarnation = incarnation
        self.sent_at = sent_at
        self.receipt = receipt
        self.is_confirmed = False
        self.is_recalled = False


class Barrier(NamedTuple):
    """A barrier on its way through the results log; ``attempts``: what it settles, and whether the loss counts."""

    sent_at: float
    attempts: dict[AttemptKey, bool]


class LiveJob:
    """A job in memory: its record, its program and its run.

    ``recorded`` is the state and job attempt that the history knows, ``recorded_tasks`` the same by task where the job
    type asks for task events; ``scope`` holds the job's variables once a template asked for them; ``memos`` what the
    results of its tasks with ``memoize`` are kept under, once these were runnable; ``is_gone`` marks a job that left
    memory because it is over, ``is_void`` one that was dropped: nothing of it is committed any more.
    """

    __slots__ = (
        "is_gone",
        "is_void",
        "memos",
        "program",
        "record",
        "recorded",
        "recorded_tasks",
        "run",
        "scope",
        "shard",
        "waiting_changed",
        "waiting_for",
        "watch_number",
    )

    def __init__(self, record: JobRecord, program: Program, run: JobRun, shard: "LiveShard") -> None:
        self.record = record
        self.program = program
        self.run = run
        self.shard = shard
        self.recorded: tuple[JobState, int] = (JobState(record.state), record.attempt)
        self.recorded_tasks: dict[int, tuple[TaskState, int]] | None = None
        self.scope: JobScope | None = None
        self.memos: dict[int, str] | None = None
        self.waiting_for: str | None = None
        self.waiting_changed = False
        self.watch_number = 0
        self.is_gone = False
        self.is_void = False

    @property
    def id(self) -> JobId:
        """Returns the job's id."""
        return self.record.id


class LiveShard:
    """A shard owned by this queen in ``epoch``.

    ``in_flight`` holds the attempts of this epoch that are with ants; ``inherited`` those that an older epoch
    dispatched and whose fate is still open; ``stops`` the attempts asked to stop, with the time of the last request.
    Positions are those of the newest step; the committed ones are those behind which the logs may be trimmed.
    """

    __slots__ = (
        "barrier_number",
        "barriers",
        "committed_launch_position",
        "committed_position",
        "epoch",
        "in_flight",
        "inherited",
        "is_dropped",
        "jobs",
        "launch_position",
        "number",
        "results_position",
        "stops",
        "taken_at",
    )

    def __init__(self, number: int, epoch: int, taken_at: float) -> None:
        self.number = number
        self.epoch = epoch
        self.taken_at = taken_at
        self.jobs: dict[JobId, LiveJob] = {}
        self.in_flight: dict[AttemptKey, Dispatch] = {}
        self.inherited: dict[AttemptKey, Incarnation] = {}
        self.stops: dict[AttemptKey, float] = {}
        self.results_position: bytes | None = None
        self.committed_position: bytes | None = None
        self.committed_launch_position: bytes | None = None
        self.launch_position: bytes | None = None
        self.barriers: dict[int, Barrier] = {}
        self.barrier_number = 0
        self.is_dropped = False

    def has_read_on(self) -> bool:
        """Says whether its logs were read beyond what is committed."""
        return (
            self.results_position != self.committed_position or self.launch_position != self.committed_launch_position
        )

    def awaiting_barrier(self) -> Iterator[AttemptKey]:
        """Yields the attempts that a barrier under way will settle."""
        for barrier in self.barriers.values():
            yield from barrier.attempts


def is_dispatched(cell: TaskCell) -> bool:
    """Says whether the task's newest attempt was given to an ant and has not ended."""
    return cell.state is TaskState.READY or cell.state is TaskState.EXECUTING
