"""Looks again, every time, at whatever a commit should have caused and that has not shown yet (``protocol.md`` 3, 5).

- an incarnation not heard for lease + margin is counted lost;
- an attempt of a lost incarnation is taken for not running once a barrier, published after that, was read back;
- one that an older epoch dispatched also when a heartbeat that echoes the present epoch lacks it;
- a dispatch without a sign of life is sent again, and so is a request to stop.
"""

from collections.abc import Callable

from formicary.bus import Outgoing
from formicary.events import topics
from formicary.events.tasks import BarrierReached
from formicary.ids import Incarnation
from formicary.queen.registry import LiveAnt
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import AttemptKey, Barrier, Dispatch, LiveShard

#: How many times the patience a barrier may take through the log before it is taken for lost.
BARRIER_PATIENCE = 10


class Sweep:
    """One look at all shards; what it sends leaves behind the messages of every batch before it, in their order.

    Args:
        patience_s: how long a dispatch, a barrier or a request to stop may go without a sign before it is sent again.
        lost_after_s: the ants' lease plus its margin.
        listening_since: the boot time since when this queen has heard whatever was said; None while it is cut off.
            Silence before that is no sign of anything, also after a suspend.
    """

    def __init__(
        self, engine: Engine, patience_s: float, lost_after_s: float, listening_since: Callable[[], float | None]
    ) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._lost_after_s = lost_after_s
        self._listening_since = listening_since

    def count_lost(self) -> list[Incarnation]:
        """Counts the incarnations lost that were silent for too long, and returns them."""
        registry = self._engine.registry
        since = self._listening_since()
        if not self._is_long_silent(since):
            return []
        silent = registry.silent_since(self._engine.clock.boottime() - self._lost_after_s)
        for incarnation in silent:
            registry.lose(incarnation, counts=registry.was_heard_since(incarnation, since))
        return silent

    def look(self, shard: LiveShard) -> None:
        """Puts what is to be sent for one shard into the open batch."""
        doubtful: dict[AttemptKey, bool] = {}
        for key, dispatch in shard.in_flight.items():
            ant = self._engine.registry.get(dispatch.incarnation)
            if ant is None:
                doubtful[key] = self._engine.registry.loss_counts(dispatch.incarnation, key)
            else:
                self._repeat(shard, key, dispatch, ant)
        for key, incarnation in shard.inherited.items():
            self._judge_inherited(shard, key, incarnation, doubtful)
        for key in list(shard.stops):
            self._repeat_stop(shard, key)
        self._repeat_barriers(shard)
        for key in shard.awaiting_barrier():
            doubtful.pop(key, None)
        if doubtful:
            self._send_barrier(shard, doubtful)

    def _repeat(self, shard: LiveShard, key: AttemptKey, dispatch: Dispatch, ant: LiveAnt) -> None:
        """Sends a dispatch again that shows no sign of life; never one that is not committed, or shall stop."""
        if dispatch.is_confirmed:
            return
        if key in ant.held:
            dispatch.is_confirmed = True
            return
        now = self._engine.clock.boottime()
        is_early = not dispatch.receipt.is_committed or now - dispatch.sent_at < self._patience_s
        if is_early or key in shard.stops:
            return
        dispatch.sent_at = now
        known = ant.registration
        self._engine.batch.outgoing.append(Outgoing(known.inbox_topic, known.inbox_key, dispatch.event))

    def _judge_inherited(
        self, shard: LiveShard, key: AttemptKey, incarnation: Incarnation, doubtful: dict[AttemptKey, bool]
    ) -> None:
        registry = self._engine.registry
        ant = registry.get(incarnation)
        if ant is None:
            if registry.is_lost(incarnation) or self._is_long_silent(self._listening_since(), shard.taken_at):
                registry.lose(incarnation)
                doubtful[key] = registry.loss_counts(incarnation, key)
            return
        ant.attempts.add(key)  # it may have registered after the shard was loaded
        if ant.epochs.get(shard.number) == shard.epoch and key not in ant.held:
            doubtful[key] = False

    def _is_long_silent(self, since: float | None, at_least: float = 0.0) -> bool:
        """Says whether this queen has been listening for so long that a living ant would have been heard."""
        return since is not None and self._engine.clock.boottime() - max(since, at_least) > self._lost_after_s

    def _repeat_stop(self, shard: LiveShard, key: AttemptKey) -> None:
        if key not in shard.in_flight and key not in shard.inherited:
            del shard.stops[key]
        elif self._engine.clock.boottime() - shard.stops[key] >= self._patience_s:
            self._engine.ask_to_stop(shard, key)

    def _repeat_barriers(self, shard: LiveShard) -> None:
        """Sends barriers again that a broker may have lost; the first copy that is read settles what they are for."""
        now = self._engine.clock.boottime()
        for number, barrier in shard.barriers.items():
            if now - barrier.sent_at >= BARRIER_PATIENCE * self._patience_s:
                shard.barriers[number] = barrier._replace(sent_at=now)
                self._publish_barrier(shard, number)

    def _send_barrier(self, shard: LiveShard, doubtful: dict[AttemptKey, bool]) -> None:
        shard.barrier_number += 1
        shard.barriers[shard.barrier_number] = Barrier(self._engine.clock.boottime(), doubtful)
        self._publish_barrier(shard, shard.barrier_number)

    def _publish_barrier(self, shard: LiveShard, number: int) -> None:
        event = BarrierReached(shard=shard.number, epoch=shard.epoch, number=number)
        self._engine.batch.outgoing.append(Outgoing(topics.results(shard.number), str(shard.number), event))


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
