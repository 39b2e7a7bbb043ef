"""The ant's inbox: an ordered log, read from its end at the start."""

from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from brokers.base import END, Edge, Position
from brokers.errors import BrokerRefusedError, BrokerUnavailableError, PositionTrimmedError
from formicary.bus import Bus, Packet
from formicary.clock import Clock
from formicary.outage import Outage
from formicary.service import Service

log = structlog.get_logger(__name__)

_MAX_PACKETS: Final = 256
_READ_S: Final = 30.0
_RETRY_S: Final = 0.2
#: Between what came and the next request, in seconds: what was begun goes first, as it shares loop and cores with it.
_HEAD_START_S: Final = 0.001
#: What other ants may still have to read is kept so long; who stays away longer begins at the end, and is sent again
#: what he missed. In seconds, as is the time between two notes of how far this ant had read.
_SHARED_KEPT_S: Final = 600.0
_MARK_S: Final = 60.0


class Inbox(Service):
    """Hands packets on in order.

    Args:
        is_shared: the topic also serves other ants, which get ten minutes to read before it is trimmed.
    """

    def __init__(
        self, bus: Bus, clock: Clock, topic: str, is_shared: bool, handle: Callable[[list[Packet]], None]
    ) -> None:
        super().__init__()
        self._bus = bus
        self._clock = clock
        self._topic = topic
        self._is_shared = is_shared
        self._handle = handle
        self._position: Position | Edge = END
        self._untrimmed = 0
        #: When this ant had read a shared topic up to where.
        self._marks: deque[tuple[float, Position]] = deque()
        self._outage = Outage("inbox_waits_for_broker", clock.boottime)

    async def open(self) -> None:
        """Fixes the position: what is sent from now on will be read. Register only afterwards."""
        self._position = await self._bus.end(self._topic)

    async def run(self) -> None:
        """Reads until cancelled."""
        self.started.set()
        while True:
            await self.read_once()

    async def read_once(self) -> None:
        """Waits for packets and hands them on."""
        try:
            packets = await self._bus.read(self._topic, self._position, _MAX_PACKETS, _READ_S)
        except BrokerUnavailableError as exc:
            self._outage.note(exc.reason)
            await self._clock.sleep(_RETRY_S)
            return
        except PositionTrimmedError:
            log.warning("inbox_was_trimmed", topic=self._topic)
            await self.open()
            return
        self._outage.over()
        if packets:
            self._position = packets[-1].position
            self._handle(packets)
            await self._trim(len(packets), packets[-1].position)
            await self._clock.sleep(_HEAD_START_S)

    async def _trim(self, count: int, position: Position) -> None:
        """Lets go of what was read, now and then: nobody ever reads it again."""
        self._untrimmed += count
        if self._is_shared:
            before = self._read_by_all(position)
        else:
            before = position if self._untrimmed >= _MAX_PACKETS else None
        if before is None:
            return
        self._untrimmed = 0
        try:
            await self._bus.trim(self._topic, before)
        except (BrokerRefusedError, BrokerUnavailableError) as exc:
            log.debug("inbox_not_trimmed", reason=exc.reason)

    def _read_by_all(self, position: Position) -> Position | None:
        """Notes how far the topic was read; returns up to where that was ten minutes ago, if it is time to trim."""
        now = self._clock.boottime()
        if self._marks and now - self._marks[-1][0] < _MARK_S:
            return None
        self._marks.append((now, position))
        before = None
        while now - self._marks[0][0] >= _SHARED_KEPT_S:
            before = self._marks.popleft()[1]
        return before
