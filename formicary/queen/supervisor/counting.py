"""Counts what was committed and sent: once per batch, with the labels' children looked up once."""

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter

from formicary.bus import Outgoing
from formicary.events.tasks import TaskDispatched
from formicary.metrics import (
    ANTS_LIVE,
    COMMIT_ROWS,
    JOBS_ENDED,
    JOBS_LIVE,
    TASKS_DISPATCHED,
    TASKS_ENDED,
    TASKS_IN_FLIGHT,
    TASKS_WAITING,
)
from formicary.model.states import TERMINAL_JOB_STATES, TERMINAL_TASK_STATES
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import LiveShard
from formicary.store.rows import JournalBatch

_ROWS = {table: COMMIT_ROWS.labels(table) for table in ("jobs", "tasks", "attempts", "history")}
_JOBS_ENDED = {str(state): JOBS_ENDED.labels(state) for state in TERMINAL_JOB_STATES}
_TASKS_ENDED = {str(state): TASKS_ENDED.labels(state) for state in TERMINAL_TASK_STATES}
_state_of = attrgetter("state")


def count_committed(rows: JournalBatch) -> None:
    """Counts the rows of a commit, and the jobs and tasks that it ended."""
    for table, child in _ROWS.items():
        if written := len(getattr(rows, table)):
            child.inc(written)
    for state, count in Counter(map(_state_of, rows.tasks)).items():
        if (ended := _TASKS_ENDED.get(state)) is not None:
            ended.inc(count)
    for state, count in Counter(row.state for row in rows.history if row.task_type is None).items():
        if (over := _JOBS_ENDED.get(state)) is not None:
            over.inc(count)


def count_sent(messages: Sequence[Outgoing]) -> None:
    """Counts the dispatches among messages that the broker has."""
    dispatched = sum(type(message.event) is TaskDispatched for message in messages)
    if dispatched:
        TASKS_DISPATCHED.inc(dispatched)


def measure(engine: Engine, shards: Iterable[LiveShard]) -> None:
    """Sets the gauges to what is in memory now."""
    owned = list(shards)
    JOBS_LIVE.set(sum(len(shard.jobs) for shard in owned))
    TASKS_IN_FLIGHT.set(sum(len(shard.in_flight) + len(shard.inherited) for shard in owned))
    TASKS_WAITING.set(engine.ready.size())
    ANTS_LIVE.set(len(engine.registry))
