"""Many pretended ants on one loop. They register, beat and end every attempt at once: what is left is the queen's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from brokers.base import Edge, Position
from brokers.registry import make_broker
from formicary.bus import Bus, Outgoing
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, AntRegistered
from formicary.events.tasks import TaskDispatched, TaskFinished
from formicary.ids import AntId, Incarnation, new_incarnation, new_uuid7

_INBOX = "formicary.ant.swarm"
_HEARTBEAT_S = 5.0


@asynccontextmanager
async def swarm(url: str, count: int, slots: int) -> AsyncIterator[None]:
    """Keeps ``count`` ants of ``slots`` slots each alive on the broker of ``url``."""
    broker = make_broker(url)
    await broker.open()
    bus = Bus(broker, new_uuid7(), SystemClock())
    ants = {AntId(f"swarm-{number}"): new_incarnation(AntId(f"swarm-{number}")) for number in range(count)}
    position = await bus.end(_INBOX)
    await bus.publish([_registered(ant_id, life, slots) for ant_id, life in ants.items()])
    tasks = [asyncio.create_task(_beat(bus, ants, slots)), asyncio.create_task(_answer(bus, position, slots))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await broker.close()


def _registered(ant_id: AntId, incarnation: Incarnation, slots: int) -> Outgoing:
    event = AntRegistered(
        ant_id=ant_id,
        incarnation=incarnation,
        inbox_topic=_INBOX,
        inbox_key=ant_id,
        methods=("PYTHON",),
        in_process_methods=("PYTHON",),
        tags=(),
        groups=(),
        slots=slots,
        prefetch=slots,
        process="swarm",
        sent_at=SystemClock().now(),
    )
    return Outgoing(topics.ANTS, ant_id, event)


async def _beat(bus: Bus, ants: dict[AntId, Incarnation], slots: int) -> None:
    sequence = 0
    while True:
        sequence += 1
        now = SystemClock().now()
        await bus.publish(
            [
                Outgoing(topics.ANTS, ant_id, _heartbeat(ant_id, life, sequence, slots, now))
                for ant_id, life in ants.items()
            ]
        )
        await asyncio.sleep(_HEARTBEAT_S)


def _heartbeat(ant_id: AntId, incarnation: Incarnation, sequence: int, slots: int, now: datetime) -> AntHeartbeat:
    return AntHeartbeat(
        ant_id=ant_id,
        incarnation=incarnation,
        sequence=sequence,
        slots_free=slots,
        is_draining=False,
        held=(),
        epochs={},
        sent_at=now,
    )


async def _answer(bus: Bus, position: Position | Edge, slots: int) -> None:
    """Ends every attempt as COMPLETED."""
    while True:
        packets = await bus.read(_INBOX, position, 500, 5.0)
        now = SystemClock().now()
        events = [event for packet in packets for event in packet.events if isinstance(event, TaskDispatched)]
        await bus.publish([_finished(event, slots, now) for event in events])
        position = packets[-1].position if packets else position


def _finished(event: TaskDispatched, slots: int, now: datetime) -> Outgoing:
    finished = TaskFinished(
        job_id=event.job_id,
        task_no=event.task_no,
        attempt=event.attempt,
        incarnation=event.incarnation,
        reason="exited",
        exit_code=0,
        is_success=True,
        started_at=now,
        finished_at=now,
        slots_free=slots,
    )
    return Outgoing(topics.results(event.shard), str(event.shard), finished)
