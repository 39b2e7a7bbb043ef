"""What ants report, turned into inputs of the jobs: the reading side of the hot loop."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from formicary.bus import Packet
from formicary.events.base import Event
from formicary.events.codec import Poison
from formicary.events.tasks import BarrierReached, DeclineReason, TaskDeclined, TaskFinished, TaskStarted
from formicary.ids import Incarnation
from formicary.model.jobs import ArtifactRef
from formicary.model.states import ErrorCode
from formicary.queen.registry import BUSY_BACKOFF_S
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import AttemptKey, LiveJob, LiveShard, is_dispatched
from formicary.states.inputs import AttemptDeclined, AttemptFinished, AttemptLost, AttemptStarted

log = structlog.get_logger(__name__)


#: Events after which an ant says no more about an attempt.
_LAST_WORDS = frozenset({TaskFinished.__struct_config__.tag, TaskDeclined.__struct_config__.tag})


#: Some centuries: what is longer ends beyond the calendar.
_LONGEST_S = 1e10


class Intake:
    """Feeds the events of a shard's results log to its jobs, in order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: How long artifacts are kept of whose task says nothing; None: as long as their job.
        self.artifacts_expire_after_s: float | None = None
        self._handlers: dict[type[Event], Callable[[LiveShard, Any, datetime], None]] = {
            TaskFinished: self._finished,
            TaskStarted: self._started,
            TaskDeclined: self._declined,
            BarrierReached: self._barrier_reached,
        }

    def take(self, shard: LiveShard, packet: Packet, now: datetime) -> None:
        """Handles one packet and moves the shard's position behind it."""
        for event in packet.events:
            handler = self._handlers.get(type(event))
            if handler is None:
                log.warning("event_in_wrong_log", shard=shard.number, event=type(event).__name__)
            else:
                handler(shard, event, now)
        for poison in packet.poison:
            self._fail_poison(shard, poison, now)
        shard.results_position = packet.position

    def _fail_poison(self, shard: LiveShard, poison: Poison, now: datetime) -> None:
        """Fails the attempt whose report cannot be read: it is over, and nothing else will ever say so."""
        if poison.attempt is None or poison.tag not in _LAST_WORDS:
            return
        key = (poison.attempt.job_id, poison.attempt.task_no, poison.attempt.attempt)
        self.fail(shard, key, f"what the ant reported cannot be read: {poison.reason}", now)

    def fail(self, shard: LiveShard, key: AttemptKey, message: str, now: datetime) -> None:
        """Fails an attempt that is with an ant, as far as this queen knows."""
        if self._engine.release(shard, key) is None:
            return
        live = shard.jobs.get(key[0])
        if live is not None:
            self._engine.step(live, refused_result(key[1], key[2], message, now))

    def _finished(self, shard: LiveShard, event: TaskFinished, now: datetime) -> None:
        key = (event.job_id, event.task_no, event.attempt)
        if _is_of_another_past(shard, key, event):
            return
        self._engine.release(shard, key)
        live = shard.jobs.get(event.job_id)
        if live is None:
            return
        self._engine.step(
            live,
            AttemptFinished(
                task_no=event.task_no,
                attempt=event.attempt,
                reason=event.reason,
                exit_code=event.exit_code,
                is_success=event.is_success,
                started_at=event.started_at,
                finished_at=event.finished_at,
                error_code=event.error_code,
                error_message=event.error_message,
                outputs=event.outputs,
                artifacts=self.dated(live, event.task_no, event.artifacts, now) if event.artifacts else (),
                cache=event.cache,
                at=now,
            ),
        )

    def dated(
        self, live: LiveJob, task_no: int, refs: tuple[ArtifactRef, ...], now: datetime
    ) -> tuple[ArtifactRef, ...]:
        """Returns what an attempt left, with the time until which it is kept; ants' clocks do not count."""
        tasks = live.program.definition.tasks
        policy = tasks[task_no].artifacts if task_no < len(tasks) else None
        after_s = policy.expires_after_s if policy is not None else None
        if after_s is None:
            after_s = self.artifacts_expire_after_s
        expires_at = None if after_s is None else now + timedelta(seconds=min(after_s, _LONGEST_S))
        return tuple(msgspec.structs.replace(ref, expires_at=expires_at, is_expired=False) for ref in refs)

    def _started(self, shard: LiveShard, event: TaskStarted, now: datetime) -> None:
        key = (event.job_id, event.task_no, event.attempt)
        if _is_of_another_past(shard, key, event):
            return
        dispatch = shard.in_flight.get(key)
        if dispatch is not None:
            dispatch.is_confirmed = True
        live = shard.jobs.get(event.job_id)
        if live is not None:
            started = AttemptStarted(task_no=event.task_no, attempt=event.attempt, started_at=event.started_at, at=now)
            self._engine.step(live, started)

    def _declined(self, shard: LiveShard, event: TaskDeclined, now: datetime) -> None:
        key = (event.job_id, event.task_no, event.attempt)
        if _holder(shard, key) != event.incarnation or event.reason == DeclineReason.DUPLICATE:
            return
        self._engine.release(shard, key)
        self._back_off(event)
        live = shard.jobs.get(event.job_id)
        if live is None:
            return
        if event.reason in (DeclineReason.UNKNOWN_METHOD, DeclineReason.BAD_ORDER):
            message = f"the ant refused the task: {event.reason}"
            self._engine.step(live, refused_result(event.task_no, event.attempt, message, now))
            return
        self._engine.step(
            live,
            AttemptDeclined(
                task_no=event.task_no,
                attempt=event.attempt,
                incarnation=event.incarnation,
                reason=event.reason,
                at=now,
            ),
        )

    def _back_off(self, event: TaskDeclined) -> None:
        ant = self._engine.registry.get(event.incarnation)
        if ant is None:
            return
        if event.reason == DeclineReason.DRAINING:
            ant.is_draining = True
        elif event.reason != DeclineReason.RECALLED:
            ant.backoff_until = self._engine.retry_at = self._engine.clock.boottime() + BUSY_BACKOFF_S

    def _barrier_reached(self, shard: LiveShard, event: BarrierReached, now: datetime) -> None:
        if event.epoch != shard.epoch:
            return
        barrier = shard.barriers.pop(event.number, None)
        for key, counts in barrier.attempts.items() if barrier is not None else ():
            self.lost(shard, key, now, counts=counts)

    def lost(self, shard: LiveShard, key: AttemptKey, now: datetime, *, counts: bool) -> None:
        """Takes an attempt for not running any more, unless it ended otherwise meanwhile."""
        if self._engine.release(shard, key) is None:
            return
        live = shard.jobs.get(key[0])
        if live is None:
            return
        _, task_no, attempt = key
        cell = live.run.tasks[task_no]
        if cell.attempt == attempt and is_dispatched(cell):
            self._engine.step(live, AttemptLost(task_no=task_no, attempt=attempt, counts=counts, at=now))


def _holder(shard: LiveShard, key: AttemptKey) -> Incarnation | None:
    dispatch = shard.in_flight.get(key)
    return dispatch.incarnation if dispatch is not None else shard.inherited.get(key)


def _is_of_another_past(shard: LiveShard, key: AttemptKey, event: TaskStarted | TaskFinished) -> bool:
    """Tells whether an attempt that is with one ant is reported by another.

    After the restore of a backup the log still has what happened since, and attempts are numbered as they were then.
    """
    holder = _holder(shard, key)
    if holder is None or holder == event.incarnation:
        return False
    log.warning("report_of_another_past", job_id=key[0], task_no=key[1], attempt=key[2], sender=event.incarnation)
    return True


def refused_result(task_no: int, attempt: int, message: str, at: datetime) -> AttemptFinished:
    """Returns the input for an attempt that cannot run, or whose result cannot be kept."""
    return AttemptFinished(
        task_no=task_no,
        attempt=attempt,
        reason="error",
        exit_code=None,
        is_success=False,
        started_at=None,
        finished_at=at,
        error_code=ErrorCode.VALIDATION,
        error_message=message,
        at=at,
    )
