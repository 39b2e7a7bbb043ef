"""What a shard's new owner makes of its rows: jobs go on, attempts of older epochs are inherited."""

from collections.abc import Sequence
from datetime import datetime

import structlog

from formicary.model.states import JobState
from formicary.queen.supervisor.intake import refused_result
from formicary.queen.supervisor.live import LiveJob, LiveShard, is_dispatched
from formicary.queen.supervisor.loading import Prepared, bring_to_life
from formicary.queen.supervisor.loop import HotLoop
from formicary.queen.supervisor.rendering import beginning
from formicary.states.inputs import AttemptLost

log = structlog.get_logger(__name__)

#: What a task says whose result the database refused.
POISON_MESSAGE = "the result holds a value that cannot be stored; check the outputs for control characters and sizes"


class Takeover:
    """Puts loaded shards into the hot loop.

    Args:
        is_lone: the broker lives in this process, so that ants which are not here died with the one before.
    """

    def __init__(self, loop: HotLoop, *, is_lone: bool) -> None:
        self._loop = loop
        self._engine = loop.engine
        self._is_lone = is_lone

    def install(self, shard: LiveShard, prepared: Sequence[Prepared], now: datetime) -> None:
        """Lets the jobs of a shard go on."""
        former = self._loop.shards.get(shard.number)
        if former is not None:
            self._loop.drop(former)
        self._loop.shards[shard.number] = shard
        for item, program in prepared:
            live = shard.jobs[item.job.id] = bring_to_life(item, program, shard)
            self._inherit(live)
            if live.run.job.state is JobState.READY:
                self._engine.step(live, beginning(live, now))
            else:
                # Why it waited is looked at anew; what its row says may be over.
                live.waiting_changed = True
                self._engine.carry_out(live, live.run.recover(now))
                self._engine.batch.touch(live)
        self._fail_poisoned(shard, now)
        if self._is_lone:
            self._lose_the_dead(shard, now)
        log.debug("shard_loaded", shard=shard.number, epoch=shard.epoch, jobs=len(prepared))

    def _inherit(self, live: LiveJob) -> None:
        for cell in live.run.tasks:
            if is_dispatched(cell) and cell.incarnation is not None:
                key = (live.id, cell.no, cell.attempt)
                live.shard.inherited[key] = cell.incarnation
                if (ant := self._engine.registry.get(cell.incarnation)) is not None:
                    ant.attempts.add(key)

    def _lose_the_dead(self, shard: LiveShard, now: datetime) -> None:
        for key, incarnation in list(shard.inherited.items()):
            live = shard.jobs.get(key[0])
            if live is not None and self._engine.registry.get(incarnation) is None:
                self._engine.release(shard, key)
                self._engine.step(live, AttemptLost(task_no=key[1], attempt=key[2], counts=False, at=now))

    def _fail_poisoned(self, shard: LiveShard, now: datetime) -> None:
        """Fails attempts whose results the database refused before this shard was loaded."""
        for key in [key for key in self._loop.poisoned if key[0] in shard.jobs]:
            self._loop.poisoned.discard(key)
            self._engine.release(shard, key)
            live = shard.jobs.get(key[0])
            if live is not None:
                self._engine.step(live, refused_result(key[1], key[2], POISON_MESSAGE, now))
