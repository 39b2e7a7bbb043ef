"""Stores the output of tasks: reads it from the bus in a group, so that any queen may write any of it."""

import asyncio
from collections.abc import Sequence

import structlog

from formicary.bus import Bus, BusSubscription, Received
from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.events import topics
from formicary.events.logs import LogChunk
from formicary.metrics import LOG_LINES_WRITTEN
from formicary.outage import Outage
from formicary.queen.watch import Signals
from formicary.service import Service
from formicary.store.errors import DataRefusedError
from formicary.store.logs import LogStore

log = structlog.get_logger(__name__)

#: Deliveries (packs of chunks) that one commit stores at most.
_BATCH = 256
_RECEIVE_S = 5.0
#: Pauses while the database is away, in seconds: doubled from the first to the last.
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 2.0


class LogWriter(Service):
    """Appends chunks in batches and acknowledges them after the commit.

    While the database is away nothing is acknowledged and nothing more is read; what comes twice is stored once.
    """

    def __init__(self, bus: Bus, store: LogStore, signals: Signals, clock: Clock, consumer: str) -> None:
        super().__init__()
        self._bus = bus
        self._store = store
        self._signals = signals
        self._clock = clock
        self._outage = Outage("log_writer_waits_for_database", clock.boottime)
        self._consumer = consumer

    async def run(self) -> None:
        """Writes until cancelled; what is unacknowledged then goes to another writer."""
        subscription = await self._bus.subscribe([topics.LOGS], topics.LOG_WRITERS, self._consumer)
        self.started.set()
        try:
            while True:
                await self.run_once(subscription, _RECEIVE_S)
        finally:
            await asyncio.shield(subscription.close())

    async def run_once(self, subscription: BusSubscription, timeout_s: float) -> int:
        """Stores what arrives within ``timeout_s``; returns the number of its chunks."""
        received = await subscription.receive(_BATCH, timeout_s)
        if not received:
            return 0
        chunks = [event for item in received for event in item.events if isinstance(event, LogChunk)]
        refused = await self._store_chunks(received, chunks)
        await subscription.ack([item for item in received if item not in refused])
        if refused:
            await subscription.nack(refused, reason="the database refuses the text")
        LOG_LINES_WRITTEN.inc(sum(len(chunk.lines) for chunk in chunks))
        self._signals.notify({chunk.job_id for chunk in chunks})
        return len(chunks)

    async def backlog(self) -> int:
        """Returns how many messages of output are published and not yet stored."""
        return await self._bus.depth(topics.LOGS, topics.LOG_WRITERS)

    async def _store_chunks(self, received: Sequence[Received], chunks: Sequence[LogChunk]) -> list[Received]:
        try:
            await self._append(chunks)
        except DataRefusedError:
            return [item for item in received if not await self._is_stored_alone(item)]
        return []

    async def _is_stored_alone(self, item: Received) -> bool:
        """Stores what can be; a line that cannot goes to the dead letters, and the log says so in its place."""
        chunks = [event for event in item.events if isinstance(event, LogChunk) and event.lines]
        reasons = [reason for chunk in chunks if (reason := await self._store_parts(chunk))]
        if reasons:
            log.warning("log_lines_refused", sender=item.sender, reason=reasons[0])
        return not reasons

    async def _store_parts(self, chunk: LogChunk) -> str:
        """Stores as much of a chunk as can be; returns why that was not all."""
        try:
            await self._append([chunk])
        except DataRefusedError as error:
            if len(chunk.lines) == 1:
                await self._store_notice(chunk.dropped(str(error)))
                return str(error)
            reasons = [await self._store_parts(half) for half in chunk.halves()]
            return next(filter(None, reasons), "")
        return ""

    async def _store_notice(self, notice: LogChunk) -> None:
        try:
            await self._append([notice])
        except DataRefusedError as error:  # not only the text, but also the place is none
            log.warning("log_notice_refused", job_id=notice.job_id, reason=str(error))

    async def _append(self, chunks: Sequence[LogChunk]) -> None:
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                await self._store.append(chunks)
                return self._outage.over()
            except UnavailableError as error:
                self._outage.note(str(error), chunks=len(chunks))
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_RETRY_S)
