"""The last word about an ant that cannot speak any more; loaded by the warden only when it needs it."""

import asyncio
import os
from collections.abc import Sequence

from brokers.errors import BrokerError
from brokers.registry import make_broker
from formicary.bus import Bus, Outgoing
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.ants import AntLeft, Held
from formicary.ids import AntId, Incarnation, JobId

#: Shard, job, task number, attempt.
HeldWords = tuple[int, str, int, int]


def publish_obituaries(
    broker_url: str, ant_id: str, lives: Sequence[tuple[str, Sequence[HeldWords]]], give_up_s: float
) -> None:
    """Publishes that incarnations of an ant are over; gives up when their owners have noticed by themselves."""
    asyncio.run(_publish(broker_url, AntId(ant_id), lives, give_up_s))


async def _publish(
    broker_url: str, ant_id: AntId, lives: Sequence[tuple[str, Sequence[HeldWords]]], give_up_s: float
) -> None:
    clock = SystemClock()
    broker = make_broker(broker_url)
    give_up_at = clock.boottime() + give_up_s
    while clock.boottime() < give_up_at:
        try:
            await broker.open()
            async with asyncio.timeout(give_up_at - clock.boottime()):
                await Bus(broker, f"warden-{ant_id}-{os.urandom(5).hex()}", clock).publish(_left(ant_id, lives))
        except (BrokerError, TimeoutError):
            await clock.sleep(0.2)
        else:
            break
    await broker.close()


def _left(ant_id: AntId, lives: Sequence[tuple[str, Sequence[HeldWords]]]) -> list[Outgoing]:
    return [
        Outgoing(
            topics.ANTS,
            ant_id,
            AntLeft(
                ant_id=ant_id,
                incarnation=Incarnation(life),
                attempts=tuple(Held(shard, JobId(job), task, attempt) for shard, job, task, attempt in attempts),
            ),
        )
        for life, attempts in lives
    ]
