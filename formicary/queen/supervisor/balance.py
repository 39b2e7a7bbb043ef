"""Asks attempts back that wait at a busy ant while another one has free slots.

Ants take more than they can run at once, so that short tasks need no round trip each. Where tasks turn out to be long,
or an ant joins late, what waits is spread anew. So it is where several queens gave to one ant without knowing of each
other, which its heartbeats tell.
"""

from collections.abc import Iterable

from formicary.bus import Outgoing
from formicary.events.tasks import TaskRecalled
from formicary.model.states import TaskState
from formicary.queen.registry import LiveAnt
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import AttemptKey, Dispatch, LiveShard
from formicary.queen.supervisor.ready import requirement_of


def recall_waiting(engine: Engine, shards: Iterable[LiveShard]) -> None:
    """Recalls as many attempts as there are free slots, those that were dispatched last; once each."""
    idle = [ant for ant in engine.registry if ant.load < 1 and not ant.is_draining]
    surplus = {ant.incarnation: ant.taken - ant.registration.slots for ant in engine.registry if ant.load > 1}
    free = sum(ant.registration.slots - ant.taken for ant in idle)
    if not surplus or not free:
        return
    for shard in shards:
        for key in reversed(shard.in_flight):
            if free <= 0:
                return
            dispatch = shard.in_flight[key]
            if surplus.get(dispatch.incarnation, 0) > 0 and _is_movable(shard, key, dispatch, idle):
                surplus[dispatch.incarnation] -= 1
                free -= 1
                _recall(engine, shard, key, dispatch)


def _is_movable(shard: LiveShard, key: AttemptKey, dispatch: Dispatch, idle: list[LiveAnt]) -> bool:
    live = shard.jobs.get(key[0])
    if live is None or dispatch.is_recalled or not dispatch.receipt.is_committed or key in shard.stops:
        return False
    if live.run.tasks[key[1]].state is TaskState.EXECUTING:  # it does not wait
        return False
    requirement = requirement_of(live, key[1])
    return any(ant.offers(requirement) for ant in idle)


def _recall(engine: Engine, shard: LiveShard, key: AttemptKey, dispatch: Dispatch) -> None:
    ant = engine.registry.get(dispatch.incarnation)
    assert ant is not None, "its surplus was counted"
    dispatch.is_recalled = True
    job_id, task_no, attempt = key
    event = TaskRecalled(
        job_id=job_id,
        task_no=task_no,
        attempt=attempt,
        shard=shard.number,
        epoch=shard.epoch,
        incarnation=dispatch.incarnation,
    )
    engine.batch.outgoing.append(Outgoing(ant.registration.inbox_topic, ant.registration.inbox_key, event))
