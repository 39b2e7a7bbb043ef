"""Asks the database for results of earlier runs, beside the hot loop, for tasks that have ``memoize`` only.

A task that is runnable is asked about instead of being queued for an ant; the answer comes back through the loop's
door. What crashes between the two is asked again: ``recover`` makes the same tasks runnable once more. Only one thing
makes a reuse true, the commit of ``TaskReused``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.model.holders import Holder
from formicary.model.jobs import ReusedFrom
from formicary.queen.supervisor.engine import MemoAsk
from formicary.queen.supervisor.loop import HotLoop
from formicary.states.inputs import TaskReused
from formicary.store.memos import MemoStore, Pin, Result, Wanted

log = structlog.get_logger(__name__)

#: Between two tries while the database is away, in seconds.
RETRY_S = 0.5
#: Asked about in one statement.
BATCH = 1000


class Memos:
    """Answers what the engine asks, many at once."""

    def __init__(self, store: MemoStore, loop: HotLoop, clock: Clock) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock

    async def run(self) -> None:
        """Answers whenever something is asked."""
        engine = self._loop.engine
        while True:
            await engine.asked.wait()
            engine.asked.clear()
            while engine.asks:
                asks, engine.asks = engine.asks[:BATCH], engine.asks[BATCH:]
                await self._answer(asks)

    async def _answer(self, asks: Sequence[MemoAsk]) -> None:
        results = await self._find(asks)
        self._loop.put(lambda now: self._apply(results, now))

    async def _find(self, asks: Sequence[MemoAsk]) -> list[tuple[MemoAsk, Result | None]]:
        now = self._clock.now()
        wanted = [Wanted(ask.memo, None if ask.max_age_s is None else _before(now, ask.max_age_s)) for ask in asks]
        while True:
            try:
                return await self._pinned(list(zip(asks, await self._store.find(wanted), strict=True)))
            except UnavailableError as error:
                log.warning("memos_not_read", reason=str(error))
                await self._clock.sleep(RETRY_S)

    async def _pinned(self, found: Sequence[tuple[MemoAsk, Result | None]]) -> list[tuple[MemoAsk, Result | None]]:
        """Returns the results that are whole: what has artifacts counts only while all of them are kept."""
        pins = {_target(ask): Pin(result, _target(ask)) for ask, result in found if result and result.artifacts}
        if not pins:
            return list(found)
        # A pin of a job that the database takes for ended would be removed: its restart has to be committed first.
        await self._loop.flushed()
        is_kept = await self._store.pin(list(pins.values()))
        whole = {target: pin.result for (target, pin), is_whole in zip(pins.items(), is_kept, strict=True) if is_whole}
        return [(ask, result if _is_whole(result, whole.get(_target(ask))) else None) for ask, result in found]

    def _apply(self, results: Sequence[tuple[MemoAsk, Result | None]], now: datetime) -> None:
        engine = self._loop.engine
        for ask, result in results:
            if not ask.is_open():
                continue
            if result is None:
                engine.ready.add(ask.live, ask.task_no)
            else:
                engine.step(ask.live, self._reuse(ask, result, now))

    def _reuse(self, ask: MemoAsk, result: Result, now: datetime) -> TaskReused:
        task_type = ask.live.program.definition.tasks[ask.task_no].task_type
        return TaskReused(
            task_no=ask.task_no,
            source=ReusedFrom(job_id=result.job_id, task_type=task_type, attempt=result.attempt),
            exit_code=result.exit_code,
            outputs=result.outputs,
            artifacts=self._loop.intake.dated(ask.live, ask.task_no, result.artifacts, now),
            at=now,
        )


def _is_whole(result: Result | None, kept: Result | None) -> bool:
    return result is None or not result.artifacts or result is kept


def _target(ask: MemoAsk) -> Holder:
    return Holder(ask.live.id, ask.task_no, ask.live.run.tasks[ask.task_no].attempt + 1)


def _before(now: datetime, age_s: float) -> datetime:
    try:
        return now - timedelta(seconds=age_s)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
