"""The ordered logs of own shards: read on from the committed position, trimmed behind it (``protocol.md`` 1)."""

import asyncio
from collections.abc import Callable, Iterator
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
#: Between two rounds of trimming, in seconds.
TRIM_S = 1.0


class ShardLogs:
    """Reads the logs of shards into the hot loop; a broker that is away is waited out.

    Args:
        is_held: says whether a shard's lease is this queen's and not over.
    """

    def __init__(self, bus: Bus, clock: Clock, loop: HotLoop, is_held: Callable[[LiveShard], bool]) -> None:
        self._bus = bus
        self._clock = clock
        self._loop = loop
        self._is_held = is_held
        #: By topic: where it was trimmed last.
        self._trimmed: dict[str, bytes] = {}

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

    async def run_trims(self) -> None:
        """Trims once a second until cancelled; how long the broker takes for it delays nothing else."""
        while True:
            await self._clock.sleep(TRIM_S)
            await self.trim()

    async def trim(self) -> None:
        """Lets go of what lies behind the committed positions that moved since the last time."""
        try:
            for shard in list(self._loop.shards.values()):
                for topic, position in _committed(shard):
                    if self._trimmed.get(topic) != position and self._owns(shard):
                        await self._bus.trim(topic, Position(position))
                        self._trimmed[topic] = position
        except BrokerUnavailableError as error:
            log.warning("logs_not_trimmed", reason=str(error))

    def _owns(self, shard: LiveShard) -> bool:
        return self._loop.shards.get(shard.number) is shard and self._is_held(shard)


def _committed(shard: LiveShard) -> Iterator[tuple[str, bytes]]:
    """Yields the logs of a shard with their committed positions, each as it is when its turn comes."""
    if shard.committed_position is not None:
        yield topics.results(shard.number), shard.committed_position
    if shard.committed_launch_position is not None:
        yield topics.launch(shard.number), shard.committed_launch_position


def _forget_position(shard: LiveShard, topic: str) -> None:
    """Lets go of a position that names nothing in the log: trimming at it could hit what is still to be read."""
    if topic == topics.results(shard.number):
        shard.results_position = shard.committed_position = None
    else:
        shard.launch_position = shard.committed_launch_position = None
