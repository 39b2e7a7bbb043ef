"""Looks again, every time, at whatever a commit should have caused and that has not shown yet (``protocol.md`` 3, 5).

- an incarnation not heard for lease + margin is counted lost;
- an attempt of a lost incarnation is taken for not running once a barrier, published after that, was read back;
- one that an older epoch dispatched also when a heartbeat that echoes the present epoch lacks it;
- a dispatch without a sign of life is sent again, and so is a request to stop.
"""

from formicary.bus import Outgoing
from formicary.events import topics
from formicary.events.tasks import BarrierReached
from formicary.ids import Incarnation
from formicary.queen.registry import LiveAnt
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import AttemptKey, Dispatch, LiveShard


class Sweep:
    """One look at all shards; what it sends needs no commit before it, since it follows from committed rows.

    Args:
        patience_s: how long a dispatch or a request to stop may go without a sign before it is sent again.
        lost_after_s: the ants' lease plus its margin.
    """

    def __init__(self, engine: Engine, patience_s: float, lost_after_s: float) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._lost_after_s = lost_after_s

    def count_lost(self) -> list[Incarnation]:
        """Counts the incarnations lost that were silent for too long, and returns them."""
        silent = self._engine.registry.silent_since(self._engine.clock.boottime() - self._lost_after_s)
        for incarnation in silent:
            self._engine.registry.lose(incarnation)
        return silent

    def look(self, shard: LiveShard) -> list[Outgoing]:
        """Returns what is to be sent for one shard."""
        outgoing: list[Outgoing] = []
        doubtful: list[tuple[AttemptKey, bool]] = []
        settled = set(shard.awaiting_barrier())
        for key, dispatch in shard.in_flight.items():
            ant = self._engine.registry.get(dispatch.incarnation)
            if ant is None:
                doubtful.append((key, True))
            else:
                outgoing.extend(self._repeat(key, dispatch, ant))
        for key, incarnation in shard.inherited.items():
            self._judge_inherited(shard, key, incarnation, doubtful)
        for key in list(shard.stops):
            self._repeat_stop(shard, key)
        doubtful = [entry for entry in doubtful if entry[0] not in settled]
        if doubtful:
            outgoing.append(self._barrier(shard, doubtful))
        return outgoing

    def _repeat(self, key: AttemptKey, dispatch: Dispatch, ant: LiveAnt) -> list[Outgoing]:
        if dispatch.is_confirmed:
            return []
        if key in ant.held:
            dispatch.is_confirmed = True
            return []
        now = self._engine.clock.boottime()
        if now - dispatch.sent_at < self._patience_s:
            return []
        dispatch.sent_at = now
        return [Outgoing(ant.registration.inbox_topic, ant.registration.inbox_key, dispatch.event)]

    def _judge_inherited(
        self, shard: LiveShard, key: AttemptKey, incarnation: Incarnation, doubtful: list[tuple[AttemptKey, bool]]
    ) -> None:
        registry = self._engine.registry
        ant = registry.get(incarnation)
        if ant is None:
            silent_s = self._engine.clock.boottime() - shard.taken_at
            if registry.is_lost(incarnation) or silent_s > self._lost_after_s:
                registry.lose(incarnation)
                doubtful.append((key, True))
        elif ant.epochs.get(shard.number) == shard.epoch and key not in ant.held:
            doubtful.append((key, False))

    def _repeat_stop(self, shard: LiveShard, key: AttemptKey) -> None:
        if key not in shard.in_flight and key not in shard.inherited:
            del shard.stops[key]
        elif self._engine.clock.boottime() - shard.stops[key] >= self._patience_s:
            self._engine.ask_to_stop(shard, key)

    def _barrier(self, shard: LiveShard, doubtful: list[tuple[AttemptKey, bool]]) -> Outgoing:
        shard.barrier_number += 1
        shard.barriers[shard.barrier_number] = doubtful
        event = BarrierReached(shard=shard.number, epoch=shard.epoch, number=shard.barrier_number)
        return Outgoing(topics.results(shard.number), str(shard.number), event)


def waiting_reasons(engine: Engine) -> None:
    """Writes into every job with a task that waits for room why it waits, and clears what no longer holds."""
    reasons = {}
    for requirement, (live, task_no) in engine.ready.heads():
        if live not in reasons:
            name = live.program.definition.tasks[task_no].task_type
            reasons[live] = f"task {name}: {engine.registry.explain(requirement)}"
    for live in [*reasons, *engine.explained]:
        reason = reasons.get(live)
        if live.waiting_for != reason and not live.is_gone:
            live.waiting_for = reason
            live.waiting_changed = True
            engine.batch.touch(live)
    engine.explained = list(reasons)
