"""Publishes on ``formicary.lifecycle`` what happened to jobs and tasks, from the rows that say so.

Rules:

- Only the leading queen publishes, what is committed, in the order of the rows; then it moves the stored cursor. So
  everything comes at least once; after a change of leadership some of it again, recognized by its ``sequence``.
- One message holds the changes of one job that were read together, as JSON Lines; its key is the job's id.
- It stays out of the hot loop's way: a wake-up leads to a look a moment later, for all that happened meanwhile.
- Where the broker lives in this process nobody else can listen, and nothing is published.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from brokers.base import Edge, Message, Position
from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from formicary.bus import Bus
from formicary.clock import Clock, time_text
from formicary.errors import UnavailableError
from formicary.events import topics
from formicary.events.public import JobStateChanged, LifecycleEvent, TaskStateChanged
from formicary.ids import Incarnation, ant_of
from formicary.metrics import LIFECYCLE_EVENTS
from formicary.outage import Outage
from formicary.queen.leadership import Leadership
from formicary.service import Service
from formicary.store.lifecycle import Change, LifecycleStore

#: Changes read and published at once.
BATCH: Final = 1000
#: The longest time between two looks, in seconds: other queens wake nobody here.
POLL_S: Final = 0.5
#: Between a wake-up and the look, in seconds.
GATHER_S: Final = 0.05
#: How long events are kept, in seconds, and how many of them at most.
KEPT_S: Final = 3600.0
KEPT_COUNT: Final = 250_000
#: Between two marks of the log's end, in seconds and in events.
_MARK_S: Final = 60.0
_MARK_COUNT: Final = KEPT_COUNT // 10
#: The longest message of an error that is passed on, in characters, and the longest body but for its last line.
_TEXT_LIMIT: Final = 4000
_BODY_BYTES: Final = 64 * 1024

_encode = msgspec.json.Encoder().encode


class LifecyclePublisher(Service):
    """Follows the history while this queen leads."""

    def __init__(self, bus: Bus, store: LifecycleStore, leadership: Leadership, clock: Clock) -> None:
        super().__init__()
        self._bus = bus
        self._store = store
        self._leadership = leadership
        self._clock = clock
        self._retention = _Retention(bus, clock)
        self._wake = asyncio.Event()
        self._epoch: int | None = None
        self._cursor = 0
        self._outage = Outage("lifecycle_not_published", clock.boottime)

    def wake(self) -> None:
        """Says that something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Publishes until cancelled; what was not published is, by whoever leads next."""
        self.started.set()
        while True:
            self._wake.clear()
            if not await self._look():
                await self._wait()

    async def run_once(self) -> int:
        """Publishes one batch; returns the number of changes."""
        epoch = self._leadership.leader_epoch()
        if epoch is None:
            self._epoch = None
            return 0
        if epoch != self._epoch:
            self._cursor = await self._store.cursor()
            self._epoch = epoch
        changes = await self._store.read(self._cursor, BATCH)
        if not changes:
            return 0
        await self._bus.publish_messages(_messages(changes))
        LIFECYCLE_EVENTS.inc(len(changes))
        if await self._store.advance(changes[-1].seq, epoch):
            self._cursor = changes[-1].seq
        else:
            self._epoch = None
        await self._retention.published(len(changes))
        return len(changes)

    async def _look(self) -> bool:
        """Publishes a batch; returns whether there may be more at once."""
        try:
            has_more = await self.run_once() == BATCH
        except (UnavailableError, BrokerRefusedError, BrokerUnavailableError) as error:
            self._outage.note(str(error))
            return False
        self._outage.over()
        return has_more

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
        await self._clock.sleep(GATHER_S)


class _Mark(NamedTuple):
    at: float
    total: int
    position: Position


class _Retention:
    """Lets go of old events: marks the end of the log now and then, and trims up to a mark that is old enough."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._total = 0
        self._marks: deque[_Mark] = deque()

    async def published(self, count: int) -> None:
        """Counts events; trims where it is time."""
        self._total += count
        now = self._clock.boottime()
        newest = self._marks[-1] if self._marks else None
        if newest is not None and now - newest.at < _MARK_S and self._total - newest.total < _MARK_COUNT:
            return
        end = await self._bus.end(topics.LIFECYCLE)
        if not isinstance(end, Edge):
            self._marks.append(_Mark(now, self._total, end))
        old: _Mark | None = None
        while self._marks and self._is_old(self._marks[0], now):
            old = self._marks.popleft()
        if old is not None:
            await self._bus.trim(topics.LIFECYCLE, old.position)

    def _is_old(self, mark: _Mark, now: float) -> bool:
        return now - mark.at >= KEPT_S or self._total - mark.total >= KEPT_COUNT


def _messages(changes: Sequence[Change]) -> list[Message]:
    lanes: dict[str, list[bytearray]] = {}
    for change in changes:
        if change.job_type is None:
            continue
        bodies = lanes.setdefault(change.job_id, [bytearray()])
        if len(bodies[-1]) > _BODY_BYTES:
            bodies.append(bytearray())
        if bodies[-1]:
            bodies[-1] += b"\n"
        bodies[-1] += _encode(_event(change, change.job_type))
    return [Message(topics.LIFECYCLE, job_id, bytes(body)) for job_id, bodies in lanes.items() for body in bodies]


def _event(change: Change, job_type: str) -> LifecycleEvent:
    message = None if change.error_code is None or change.note is None else change.note[:_TEXT_LIMIT]
    if change.task_type is None:
        return JobStateChanged(
            sequence=change.seq,
            job_id=change.job_id,
            job_type=job_type,
            state=change.state,
            attempt=change.attempt,
            at=time_text(change.at),
            error_code=change.error_code,
            error_message=message,
        )
    return TaskStateChanged(
        sequence=change.seq,
        job_id=change.job_id,
        job_type=job_type,
        task_type=change.task_type,
        state=change.state,
        attempt=change.attempt,
        at=time_text(change.at),
        ant_id=None if change.incarnation is None else ant_of(Incarnation(change.incarnation)) or None,
        exit_code=change.exit_code,
        error_code=change.error_code,
        error_message=message,
    )
