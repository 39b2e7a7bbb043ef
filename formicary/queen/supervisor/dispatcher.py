"""Gives runnable tasks to ants: the last thing a batch does before it is committed."""

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
        engine = self._engine
        now, boot = engine.clock.now(), engine.clock.boottime()
        while (ant := engine.registry.choose(requirement, boot)) is not None:
            # A share of the ant's room at a time, so that the choice among many ants is not made per task.
            for _ in range(max(1, (ant.capacity(requirement[0]) - ant.in_flight) // 4)):
                entry = engine.ready.pop(requirement)
                if entry is None:
                    return
                self._give(ant, *entry, now, boot)

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
        self._engine.step(
            live, AttemptDispatched(task_no=task_no, incarnation=known.incarnation, epoch=shard.epoch, at=now)
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
