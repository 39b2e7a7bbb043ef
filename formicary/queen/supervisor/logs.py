"""The ordered logs of own shards: read on from the committed position, trimmed behind it (``protocol.md`` 1)."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

import structlog

from brokers.base import START, Edge, Position
from brokers.errors import BrokerUnavailableError, PositionTrimmedError
from formicary.bus import Bus, Packet
from formicary.clock import Clock
from formicary.events import topics
from formicary.queen.supervisor.live import LiveShard
from formicary.queen.supervisor.loop import HotLoop

log = structlog.get_logger(__name__)

TakePackets = Callable[[LiveShard, list[Packet], asyncio.Event, datetime], None]

#: Packets taken from a log at once.
READ_COUNT = 256


class ShardLogs:
    """Reads the logs of shards into the hot loop; a broker that is away is waited out."""

    def __init__(self, bus: Bus, clock: Clock, loop: HotLoop) -> None:
        self._bus = bus
        self._clock = clock
        self._loop = loop

    async def read(self, shard: LiveShard, topic: str, after: bytes | None, take: TakePackets) -> None:
        """Hands packets to the loop, one batch at a time, until the shard is dropped or this is cancelled."""
        position: Position | Edge = START if after is None else Position(after)
        while not shard.is_dropped:
            try:
                packets = await self._bus.read(topic, position, READ_COUNT, timeout_s=30.0)
            except BrokerUnavailableError as error:
                log.warning("log_not_readable", topic=topic, reason=str(error))
                await self._clock.sleep(1.0)
                continue
            except PositionTrimmedError:
                log.error("log_trimmed_beyond_position", topic=topic)
                position = START
                _forget_position(shard, topic)
                continue
            if packets:
                position = packets[-1].position
                handled = asyncio.Event()
                self._loop.put(partial(take, shard, packets, handled))
                await handled.wait()

    async def trim(self, shards: Iterable[LiveShard]) -> None:
        """Lets go of what lies behind the committed positions."""
        try:
            for shard in list(shards):
                if shard.committed_position is not None:
                    await self._bus.trim(topics.results(shard.number), Position(shard.committed_position))
                if shard.committed_launch_position is not None:
                    await self._bus.trim(topics.launch(shard.number), Position(shard.committed_launch_position))
        except BrokerUnavailableError as error:
            log.warning("logs_not_trimmed", reason=str(error))


def _forget_position(shard: LiveShard, topic: str) -> None:
    """Lets go of a position that names nothing in the log: trimming at it could hit what is still to be read."""
    if topic == topics.results(shard.number):
        shard.results_position = shard.committed_position = None
    else:
        shard.launch_position = shard.committed_launch_position = None
