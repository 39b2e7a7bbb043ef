"""The outbox: what an ant says about attempts, in one publish per flush.

An attempt stays held until the publish of its result is confirmed. ``TaskStarted`` waits ``STARTED_DELAY_S`` for the
end of a short attempt, and is left out when the end leaves first.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from brokers.errors import MessageTooLargeError
from formicary.ant.assignments import Assignment, Assignments, Key, Phase
from formicary.ant.slots import Slots
from formicary.ant.values import Json, clean_text
from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.errors import DataError
from formicary.events import topics
from formicary.events.base import Event
from formicary.events.tasks import TaskDeclined, TaskFinished, TaskStarted
from formicary.ids import Incarnation
from formicary.model.jobs import ArtifactRef, CacheRecord
from formicary.service import Service

log = structlog.get_logger(__name__)

#: How long the start of an attempt waits to travel with its end, in seconds.
STARTED_DELAY_S: Final = 0.02
#: Longest text of an error, in characters.
_MESSAGE_LIMIT: Final = 4000


class End(NamedTuple):
    """How an attempt ended; the fields are those of ``TaskFinished``."""

    reason: str
    exit_code: int | None = None
    is_success: bool = False
    error_code: str | None = None
    error_message: str | None = None
    outputs: dict[str, Json] | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    cache: CacheRecord | None = None


def error_end(code: str, message: str) -> End:
    """Returns the end of an attempt whose executor or transfer failed."""
    return End("error", error_code=code, error_message=message)


class Reporter(Service):
    """Publishes the reports of one ant, for ever trying again, in order."""

    def __init__(self, bus: Bus, clock: Clock, assignments: Assignments, slots: Slots) -> None:
        super().__init__()
        self._bus = bus
        self._clock = clock
        self._assignments = assignments
        self._slots = slots
        self._names: dict[int, tuple[str, str]] = {}
        self._outbox: list[tuple[int, Event]] = []
        self._starts: dict[Key, Assignment] = {}
        self._starts_timer: asyncio.TimerHandle | None = None
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def run(self) -> None:
        """Flushes whenever there is something to say, until cancelled."""
        self.started.set()
        while True:
            await self._has_work.wait()
            await self.flush_once()

    async def flush_once(self) -> None:
        """Publishes what is in the outbox and lets go of the attempts whose end it confirms."""
        batch, self._outbox = self._outbox, []
        self._has_work.clear()
        await self._publish(batch)
        drop = self._assignments.drop
        for _, event in batch:
            if type(event) is TaskFinished:
                drop((event.job_id, event.task_no, event.attempt))
        if not self._outbox and not self._starts:
            self._is_idle.set()

    async def drained(self) -> None:
        """Returns when everything said so far was confirmed."""
        await self._is_idle.wait()

    def begun(self, assignment: Assignment) -> None:
        """Says that an attempt runs, unless its end comes at once."""
        self._is_idle.clear()
        self._starts[assignment.key] = assignment
        if self._starts_timer is None:
            self._starts_timer = asyncio.get_running_loop().call_later(STARTED_DELAY_S, self._say_starts)

    def ended(self, assignment: Assignment, end: End) -> None:
        """Says how an attempt ended; of an abandoned one nothing is said, and it is held no more."""
        key = assignment.key
        self._starts.pop(key, None)
        assignment.phase = Phase.ENDED
        if assignment.is_abandoned:
            self._assignments.drop(key)
            return
        message = end.error_message
        self._say(
            assignment.shard,
            TaskFinished(
                job_id=key[0],
                task_no=key[1],
                attempt=key[2],
                incarnation=assignment.incarnation,
                reason=end.reason,
                exit_code=end.exit_code,
                is_success=end.is_success,
                started_at=assignment.started_at,
                finished_at=self._clock.now(),
                slots_free=self._slots.free,
                error_code=end.error_code,
                error_message=message if message is None else clean_text(message)[:_MESSAGE_LIMIT],
                outputs=end.outputs,
                artifacts=end.artifacts,
                cache=end.cache,
            ),
        )

    def failed(self, key: Key, shard: int, incarnation: Incarnation, end: End) -> None:
        """Says that a dispatch failed that was never accepted: its order cannot be read."""
        job_id, task_no, attempt = key
        self._say(
            shard,
            TaskFinished(
                job_id=job_id,
                task_no=task_no,
                attempt=attempt,
                incarnation=incarnation,
                reason=end.reason,
                exit_code=None,
                is_success=False,
                started_at=None,
                finished_at=self._clock.now(),
                slots_free=self._slots.free,
                error_code=end.error_code,
                error_message=clean_text(end.error_message or "")[:_MESSAGE_LIMIT],
            ),
        )

    def declined(self, key: Key, shard: int, incarnation: Incarnation, reason: str) -> None:
        """Says that an attempt does not run here and never will."""
        job_id, task_no, attempt = key
        self._say(
            shard,
            TaskDeclined(
                job_id=job_id,
                task_no=task_no,
                attempt=attempt,
                incarnation=incarnation,
                reason=reason,
                slots_free=self._slots.free,
            ),
        )

    def _say(self, shard: int, event: Event) -> None:
        self._outbox.append((shard, event))
        if not self._has_work.is_set():
            self._is_idle.clear()
            self._has_work.set()

    def _say_starts(self) -> None:
        self._starts_timer = None
        starts, self._starts = self._starts, {}
        for (job_id, task_no, attempt), assignment in starts.items():
            event = TaskStarted(
                job_id=job_id,
                task_no=task_no,
                attempt=attempt,
                incarnation=assignment.incarnation,
                started_at=assignment.started_at or self._clock.now(),
            )
            self._say(assignment.shard, event)
        if not self._outbox:
            self._has_work.set()

    def _address(self, shard: int) -> tuple[str, str]:
        name = self._names.get(shard)
        if name is None:
            name = self._names[shard] = (topics.results(shard), str(shard))
        return name

    async def _publish(self, batch: Sequence[tuple[int, Event]]) -> None:
        """Publishes; an event that can never be sent is replaced by the failure of its attempt."""
        outgoing = [Outgoing(*self._address(shard), event) for shard, event in batch]
        try:
            await self._bus.publish(outgoing)
        except (DataError, MessageTooLargeError) as exc:
            log.warning("reports_not_publishable", error=str(exc), reports=len(outgoing))
            for item in outgoing:
                await self._publish_one(item)

    async def _publish_one(self, item: Outgoing) -> None:
        try:
            await self._bus.publish([item])
        except (DataError, MessageTooLargeError) as exc:
            if isinstance(item.event, TaskFinished):
                await self._bus.publish([item._replace(event=_unreportable(item.event, exc))])


def _unreportable(event: TaskFinished, cause: Exception) -> TaskFinished:
    return TaskFinished(
        job_id=event.job_id,
        task_no=event.task_no,
        attempt=event.attempt,
        incarnation=event.incarnation,
        reason="error",
        exit_code=event.exit_code,
        is_success=False,
        started_at=event.started_at,
        finished_at=event.finished_at,
        slots_free=event.slots_free,
        error_code="ERR_VALIDATION",
        error_message=f"the result cannot be reported: {cause}"[:_MESSAGE_LIMIT],
    )
