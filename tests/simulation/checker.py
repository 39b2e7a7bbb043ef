"""What must hold in every run (``protocol.md`` 1 to 7), judged from what really ran and what was really committed.

The checker keeps books of its own: it trusts neither the fences of the store nor what queens and ants believe.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from brokers.base import Message
from formicary.ant.assignments import Key
from formicary.events.ants import AntHeartbeat, AntLeft
from formicary.events.base import Event
from formicary.events.codec import decode_pack
from formicary.events.tasks import TaskDispatched, TaskFinished
from formicary.ids import Incarnation, JobId
from formicary.model.jobs import ReusedFrom
from formicary.model.states import TERMINAL_JOB_STATES
from formicary.store.rows import AttemptRow, HistoryRow, JournalBatch, LeaseRow, TaskRow
from tests.simulation.database import MemoryDatabase
from tests.simulation.trace import Trace

_TERMINAL = frozenset(state.value for state in TERMINAL_JOB_STATES)


@dataclass(slots=True)
class _Result:
    incarnation: Incarnation
    reason: str
    at: float


@dataclass(slots=True)
class _Books:
    running: dict[Key, str] = field(default_factory=dict)
    exits: dict[Key, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    results: dict[Key, _Result] = field(default_factory=dict)
    left_at: dict[Incarnation, float] = field(default_factory=dict)
    heard_at: dict[Incarnation, float] = field(default_factory=dict)
    ended: dict[tuple[str, int], str] = field(default_factory=dict)


class Checker:
    """Sees everything; ``violations`` are the promises that were broken.

    Args:
        slots: of each ant.
        lease_s: of an ant.
    """

    def __init__(self, trace: Trace, slots: dict[str, int], lease_s: float) -> None:
        self._trace = trace
        self._lease_s = lease_s
        self._slots = slots
        self._books = _Books()
        self.now = 0.0
        self.violations: list[str] = []
        self.database: MemoryDatabase | None = None
        self.counts: Counter[str] = Counter()

    def violate(self, what: str) -> None:
        """Notes that a promise was broken."""
        self._trace.add(f"VIOLATION {what}")
        self.violations.append(what)

    def work_began(self, ant_id: str, key: Key) -> None:
        """A task's code runs: alone, from a committed dispatch that has not ended, within the ant's slots."""
        self._trace.add(f"{ant_id} runs {name(key)}")
        self.counts["runs"] += 1
        running = self._books.running
        for other, where in running.items():
            if other[:2] == key[:2]:
                self.violate(f"two attempts at once: {name(other)} on {where} and {name(key)} on {ant_id}")
        if key in self._books.exits:
            self.violate(f"an attempt ran twice: {name(key)}")
        self._check_committed(key)
        running[key] = ant_id
        if sum(where == ant_id for where in running.values()) > self._slots[ant_id]:
            self.violate(f"more than {self._slots[ant_id]} slots of {ant_id} are in use")

    def _check_committed(self, key: Key) -> None:
        assert self.database is not None
        row = self.database.tasks.get(key[0], {}).get(key[1])
        if row is None or row.attempt < key[2]:
            self.violate(f"{name(key)} ran before its dispatch was committed")
        elif row.attempt > key[2]:
            self.violate(f"{name(key)} began after attempt {row.attempt} was dispatched")
        elif row.state not in ("READY", "EXECUTING"):
            self.violate(f"{name(key)} began although it is committed as {row.state}")

    def work_ended(self, ant_id: str, key: Key, exit_code: int) -> None:
        """A task's code ended."""
        self._trace.add(f"{ant_id} ends {name(key)} with {exit_code}")
        self._books.running.pop(key, None)
        self._books.exits[key] = exit_code

    def appended(self, message: Message) -> None:
        """The broker has a message."""
        pack = decode_pack(message.body)
        words = []
        for event in pack.events:
            words.append(self._note(event))
        self._trace.add(f"{pack.sender} -> {message.topic}: {', '.join(words)}")

    def _note(self, event: Event) -> str:
        books = self._books
        match event:
            case TaskFinished():
                key = (event.job_id, event.task_no, event.attempt)
                books.results.setdefault(key, _Result(event.incarnation, event.reason, self.now))
                return f"TaskFinished {name(key)} {event.reason} {event.exit_code}"
            case TaskDispatched():
                key = (event.job_id, event.task_no, event.attempt)
                return f"TaskDispatched {name(key)} epoch {event.epoch} number {event.number} to {event.incarnation}"
            case AntLeft():
                books.left_at.setdefault(event.incarnation, self.now)
                return f"AntLeft {event.incarnation}"
            case AntHeartbeat():
                # After a lease of silence the incarnation is over: what still arrives of it tells nothing.
                if self.now - books.heard_at.get(event.incarnation, self.now) <= self._lease_s:
                    books.heard_at[event.incarnation] = self.now
                return f"AntHeartbeat {event.incarnation} {event.sequence} holds {len(event.held)}"
        key_of = getattr(event, "task_no", None)
        detail = "" if key_of is None else " " + name((event.job_id, event.task_no, event.attempt))  # type: ignore[attr-defined]  # events of attempts
        return type(event).__name__ + detail

    def took(self, rows: Sequence[LeaseRow]) -> None:
        """Leases have new epochs."""
        for row in rows:
            self._trace.add(f"{row.owner_incarnation} has {row.name} in epoch {row.epoch}")
            self._books.epochs[row.name] = row.epoch

    def committed(self, incarnation: str, batch: JournalBatch) -> None:
        """The journal has a batch."""
        for mark in batch.shards:
            if mark.epoch != self._books.epochs.get(f"shard-{mark.shard}"):
                self.violate(f"{incarnation} committed to shard {mark.shard} in the old epoch {mark.epoch}")
        if batch.claims and batch.leader_epoch != self._books.epochs.get("leader"):
            self.violate(f"{incarnation} claimed in the old leader epoch {batch.leader_epoch}")
        if batch.jobs or batch.tasks:
            jobs = " ".join(f"{row.id[-4:]}={row.state}" for row in batch.jobs)
            tasks = " ".join(f"{row.job_id[-4:]}/{row.task_no}#{row.attempt}={row.state}" for row in batch.tasks)
            self._trace.add(f"{incarnation} commits {jobs} {tasks}")
        for row in batch.attempts:
            self._check_attempt(row)
        for task in batch.tasks:
            self._check_task(task)
        for entry in batch.history:
            self.check_history(entry)
        if any(change > 0 for change in batch.running_deltas.values()):
            self.check_concurrency()

    def _check_attempt(self, row: AttemptRow) -> None:
        """An attempt was replaced: not although its result was in the log before its ant was known to be gone."""
        key = (JobId(row.job_id), row.task_no, row.attempt)
        result = self._books.results.get(key)
        if row.state != "CANCELLED" or result is None or result.reason not in ("exited", "timed_out"):
            return
        bound = self._books.left_at.get(result.incarnation, self._books.heard_at.get(result.incarnation, 0.0))
        if result.at < bound:
            self.violate(f"the result of {name(key)} was in the log, and it was taken for lost")

    def _check_reuse(self, row: TaskRow, source: ReusedFrom) -> None:
        """A result was taken: of a run that ended well, by a task that did not run itself for it."""
        key, origin = (JobId(row.job_id), row.task_no, row.attempt), (source.job_id, row.task_no, source.attempt)
        self.counts["reuses"] += 1
        if self._books.exits.get(origin) != 0:
            self.violate(f"{name(key)} took the result of {name(origin)}: {self._books.exits.get(origin)}")
        if key in self._books.exits or key in self._books.running or row.state != "COMPLETED":
            self.violate(f"{name(key)} took a result and ran, or is {row.state}")

    def _check_task(self, row: TaskRow) -> None:
        key = (JobId(row.job_id), row.task_no, row.attempt)
        if row.reused_from is not None:
            self._check_reuse(row, msgspec.json.decode(row.reused_from, type=ReusedFrom))
            return
        if row.state == "COMPLETED" and self._books.exits.get(key) != 0:
            self.violate(f"{name(key)} is COMPLETED, but its code ended with {self._books.exits.get(key)}")
        if row.error_code == "ERR_EXIT_CODE" and self._books.exits.get(key) != row.exit_code:
            self.violate(
                f"{name(key)} failed with {row.exit_code}, but its code ended with {self._books.exits.get(key)}"
            )

    def check_history(self, entry: HistoryRow) -> None:
        """A job reaches one terminal state in each of its attempts."""
        if entry.task_type is not None:
            return
        key = (entry.job_id, entry.attempt)
        former = self._books.ended.get(key)
        if former is not None:
            self.violate(f"job {entry.job_id[-4:]} became {entry.state} after it was {former}")
        if entry.state in _TERMINAL:
            self._books.ended[key] = entry.state

    def check_concurrency(self) -> None:
        """No job type runs more jobs than it may, and its counter tells the truth."""
        assert self.database is not None
        for item in self.database.job_types.values():
            live = sum(
                job.record.job_type_id == item.id
                and job.record.state not in _TERMINAL
                and job.record.state != "PENDING"
                and not (job.record.state == "PAUSED" and job.record.started_at is None)
                for job in self.database.jobs.values()
            )
            if item.max_concurrency is not None and live > item.max_concurrency:
                self.violate(f"{live} jobs of {item.job_type} run at once")
            if live != item.running_count:
                self.violate(f"{item.job_type} counts {item.running_count} jobs, {live} run")

    def finish(self) -> None:
        """The run is over, and nothing was disturbed for long: every job has ended, nothing runs, commands are done."""
        assert self.database is not None
        for job in self.database.jobs.values():
            if job.record.state not in _TERMINAL:
                self.violate(f"job {job.record.id[-4:]} never ended: {job.record.state}, waits for {job.waiting_for}")
        for key in self._books.running:
            self.violate(f"{name(key)} still runs")
        for command in self.database.commands.values():
            if not command.is_done:
                self.violate(f"command {command.row.kind} of job {command.row.job_id[-4:]} was never answered")
        self.check_concurrency()


def name(key: tuple[str, int, int]) -> str:
    """Returns a short name of an attempt."""
    return f"{key[0][-4:]}/{key[1]}#{key[2]}"
