"""Asks the database for results of earlier runs, beside the hot loop, for tasks that have ``memoize`` only.

A task that is runnable is asked about instead of being queued for an ant; the answer comes back through the loop's
door. What crashes between the two is asked again: ``recover`` makes the same tasks runnable once more. Only one thing
makes a reuse true, the commit of ``TaskReused``.
"""

from collections.abc import Sequence
from datetime import datetime

import structlog

from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.model.holders import Holder
from formicary.model.jobs import ReusedFrom
from formicary.queen.supervisor.engine import MemoAsk
from formicary.queen.supervisor.loop import HotLoop
from formicary.states.inputs import TaskReused
from formicary.store.memos import MemoStore, Result, Wanted

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
        wanted = [Wanted(ask.memo, ask.max_age_s) for ask in asks]
        while True:
            try:
                found = zip(asks, await self._store.find(wanted), strict=True)
                return [(ask, await self._pinned(ask, result)) for ask, result in found]
            except UnavailableError as error:
                log.warning("memos_not_read", reason=str(error))
                await self._clock.sleep(RETRY_S)

    async def _pinned(self, ask: MemoAsk, result: Result | None) -> Result | None:
        """Returns the result if it is whole: what has artifacts counts only while all of them are kept."""
        if result is None or not result.artifacts:
            return result
        target = Holder(ask.live.id, ask.task_no, ask.live.run.tasks[ask.task_no].attempt + 1)
        return result if await self._store.pin(result, target) else None

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
