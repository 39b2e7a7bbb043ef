"""Carries wake-ups between the parts of one queen, which know nothing of each other."""

import asyncio
from collections.abc import Sequence

import structlog

from brokers.errors import BrokerError
from formicary.bus import Bus, Outgoing
from formicary.events import topics
from formicary.events.jobs import JobCommandIssued
from formicary.ids import JobId
from formicary.queen.lifecycle import LifecyclePublisher
from formicary.queen.scheduler.scheduler import Scheduler
from formicary.queen.supervisor.supervisor import Supervisor
from formicary.queen.watch import JobWatch, News
from formicary.store.rows import JobRecord, NewJob

log = structlog.get_logger(__name__)


class Bell:
    """Carries wake-ups between the parts of one queen."""

    def __init__(self, watch: JobWatch, bus: Bus) -> None:
        self._watch = watch
        self._bus = bus
        #: Shards whose owners are still to be told of commands, and who tells them.
        self._asked: set[int] = set()
        self._asking: asyncio.Task[None] | None = None
        self.scheduler: Scheduler | None = None
        self.supervisor: Supervisor | None = None
        self.lifecycle: LifecyclePublisher | None = None

    def submitted(self, startable: Sequence[JobRecord] = ()) -> None:
        """Offers the scheduler jobs that can start at once, or makes it look for them."""
        if self.lifecycle is not None:
            self.lifecycle.wake()
        if self.scheduler is not None and startable:
            self.scheduler.offer(startable)
        elif self.scheduler is not None:
            self.scheduler.wake()

    async def begin(self, row: NewJob, record: JobRecord) -> bool:
        """Has the scheduler insert and start a job, if it can."""
        is_started = self.scheduler is not None and await self.scheduler.begin(row, record)
        if is_started and self.lifecycle is not None:
            self.lifecycle.wake()
        return is_started

    def command(self, shard: int) -> None:
        """Wakes the shard's owner: in process, or over the bus."""
        if self.supervisor is not None and self.supervisor.owns(shard):
            self.supervisor.commands.wake()
            return
        self._asked.add(shard)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_owners(), name="bell")

    async def close(self) -> None:
        """Says nothing more to other queens, which look for commands by themselves, too."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _ask_owners(self) -> None:
        while self._asked:
            shards, self._asked = self._asked, set()
            told = [Outgoing(topics.launch(shard), str(shard), JobCommandIssued(shard=shard)) for shard in shards]
            try:
                await self._bus.publish(told)
            except BrokerError as error:
                log.warning("owners_not_told", shards=sorted(shards), reason=str(error))

    def ended_many(self, job_ids: Sequence[JobId], news: News | None = None) -> None:
        """Wakes who waits for these jobs, and the scheduler where room was missing."""
        self._watch.ended_many(job_ids, news)
        if self.lifecycle is not None:
            self.lifecycle.wake()
        if self.scheduler is not None:
            self.scheduler.ended()
