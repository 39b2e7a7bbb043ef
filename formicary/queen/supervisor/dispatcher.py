"""Gives runnable tasks to ants: the last thing a batch does before it is committed."""

import heapq
from datetime import datetime

import msgspec

from formicary.bus import Outgoing
from formicary.errors import FormicaryError
from formicary.events.tasks import TaskDispatched
from formicary.queen.registry import LiveAnt, Requirement
from formicary.queen.supervisor.engine import Engine, refusal
from formicary.queen.supervisor.live import Dispatch, LiveJob
from formicary.queen.supervisor.rendering import render_order
from formicary.states.inputs import AttemptDispatched


class Dispatcher:
    """Fills the ants' room from the queue of runnable tasks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def dispatch(self) -> None:
        """Dispatches until nothing waits or no ant has room; what is too bad to dispatch fails."""
        for requirement in self._engine.ready.requirements():
            self._fill(requirement)

    def _fill(self, requirement: Requirement) -> None:
        """Gives to the least loaded ant, a few at a time, until nothing waits or no ant has room."""
        engine, method = self._engine, requirement[0]
        now, boot = engine.clock.now(), engine.clock.boottime()
        ants = [(ant.load, order, ant) for order, ant in enumerate(engine.registry.with_room(requirement, boot))]
        heapq.heapify(ants)
        while ants:
            _, order, ant = ants[0]
            for _ in range(self._portion(requirement, ant, len(ants))):
                entry = engine.ready.pop(requirement)
                if entry is None:
                    return
                self._give(ant, *entry, now, boot)
            if ant.in_flight < ant.capacity(method):
                heapq.heapreplace(ants, (ant.load, order, ant))
            else:
                heapq.heappop(ants)

    def _portion(self, requirement: Requirement, ant: LiveAnt, ant_count: int) -> int:
        """Returns how many to give at once: few enough to spread what waits, many enough to choose seldom."""
        room = ant.capacity(requirement[0]) - ant.in_flight
        if ant_count == 1:
            return room
        return max(1, min(room // 4, self._engine.ready.count(requirement) // (2 * ant_count)))

    def _give(self, ant: LiveAnt, live: LiveJob, task_no: int, now: datetime, boot: float) -> None:
        order = live.program.tasks[task_no].constant_order
        if order is None:
            try:
                order = render_order(live, task_no, now)
            except FormicaryError as error:
                self._engine.step(live, refusal(task_no, error, now))
                return
        self._send(ant, live, task_no, order, now, boot)

    def _send(self, ant: LiveAnt, live: LiveJob, task_no: int, order: msgspec.Raw, now: datetime, boot: float) -> None:
        shard = live.shard
        known = ant.registration
        memo = live.memos.get(task_no) if live.memos is not None else None
        self._engine.step(
            live,
            AttemptDispatched(task_no=task_no, incarnation=known.incarnation, epoch=shard.epoch, memo=memo, at=now),
        )
        attempt = live.run.tasks[task_no].attempt
        event = TaskDispatched(
            job_id=live.id,
            task_no=task_no,
            attempt=attempt,
            shard=shard.number,
            epoch=shard.epoch,
            number=ant.next_number(shard.number, shard.epoch),
            incarnation=known.incarnation,
            order=order,
        )
        key = (live.id, task_no, attempt)
        ant.attempts.add(key)
        shard.in_flight[key] = Dispatch(event, known.incarnation, boot, self._engine.batch.receipt)
        self._engine.batch.outgoing.append(Outgoing(known.inbox_topic, known.inbox_key, event))
