"""The hot loop: runs the jobs of this queen's shards, without locks.

Order of a batch: what came in is stepped in memory -> runnable tasks get ants -> the rows of everything that changed
are committed in one statement -> messages leave. While a batch is being committed the next one is stepped, and
whatever comes meanwhile joins it. Everything that happens to a job comes through ``self._inbox``.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from formicary.bus import Bus
from formicary.clock import Clock
from formicary.events.base import Event
from formicary.events.tasks import TaskDispatched
from formicary.ids import JobId
from formicary.queen.registry import AntRegistry
from formicary.queen.supervisor.batch import Batch
from formicary.queen.supervisor.committer import Committer
from formicary.queen.supervisor.dispatcher import Dispatcher
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.intake import Intake
from formicary.queen.supervisor.live import AttemptKey, LiveJob, LiveShard
from formicary.queen.supervisor.program import Programs
from formicary.queen.supervisor.timers import Wake
from formicary.queen.watch import News
from formicary.service import Service
from formicary.states.inputs import DelayElapsed, JobTimedOut
from formicary.store.journal import Journal

log = structlog.get_logger(__name__)

#: Rows of an open batch beyond which stepping waits for the commit before it.
MAX_OPEN_JOBS = 20_000
#: Jobs of an open batch, and submissions on their way to one, below which a submission may wait for its commit.
CALM_JOBS = 32

Work = Callable[[datetime], None]
"""Something that happened, to be applied to memory by the loop at the time given."""


class JobEndings(Protocol):
    """Is told which jobs ended, after the commit."""

    def ended_many(self, job_ids: Sequence[JobId], news: News) -> None:
        """These jobs are terminal, or PENDING again."""
        ...


class HotLoop(Service):
    """Steps, dispatches, commits, publishes. Others hand it work; nobody else changes the memory of jobs."""

    def __init__(
        self, journal: Journal, bus: Bus, registry: AntRegistry, programs: Programs, clock: Clock, endings: JobEndings
    ) -> None:
        super().__init__()
        self.engine = Engine(registry, clock)
        self.intake = Intake(self.engine)
        self.programs = programs
        self.shards: dict[int, LiveShard] = {}
        self._dispatcher = Dispatcher(self.engine)
        self._clock = clock
        self._inbox: deque[Work] = deque()
        self._wake = asyncio.Event()
        self._open = asyncio.Event()
        self._taken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._answers: set[asyncio.Future[bool]] = set()
        #: Called after shards were dropped because the database is behind the memory, to load them again.
        self.on_drop: Callable[[list[LiveShard], str], None] = lambda shards, why: None
        #: Jobs claimed in memory whose claim is not committed yet.
        self.claiming: set[JobId] = set()
        #: Attempts that fail with ERR_VALIDATION once their shard is loaded again.
        self.poisoned: set[AttemptKey] = set()
        self._committer = Committer(journal, bus, clock, self, endings.ended_many, self._claimed)

    def put(self, work: Work) -> None:
        """Hands something that happened to the loop."""
        self._inbox.append(work)
        self._wake.set()

    async def run(self) -> None:
        """Runs the loop and the committer."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._committer.run(self._take))
                self.started.set()
                while True:
                    await self._step_next()
        finally:
            for answer in list(self._answers):
                if not answer.done():
                    answer.set_result(False)

    async def _step_next(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        while len(self.engine.batch.jobs) > MAX_OPEN_JOBS:
            self._taken.clear()
            await self._taken.wait()
        self.run_once()

    def expect_answer(self) -> "asyncio.Future[bool]":
        """Returns what a batch will answer; False where the loop ends before it does."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)
        return answer

    def is_calm(self) -> bool:
        """Says whether the next commit is a small one."""
        return len(self.engine.batch.jobs) < CALM_JOBS and len(self._answers) < CALM_JOBS

    def run_once(self) -> None:
        """Applies everything that came in, then dispatches; the open batch grows by what changed."""
        now = self._clock.now()
        inbox = self._inbox
        for _ in range(len(inbox)):
            inbox.popleft()(now)
        self._fire_timers(now)
        self._dispatcher.dispatch()
        if not self.engine.batch.is_empty():
            self._open.set()
        self._arm_timer()

    async def flushed(self) -> None:
        """Returns when everything handed in before is committed, and its messages are with the broker.

        What could not be committed was dropped by then; its shards are loaded again.
        """
        done = asyncio.Event()
        self.put(lambda _: self.engine.batch.waiters.append(done))
        await done.wait()

    async def _take(self) -> Batch:
        await self._open.wait()
        self._open.clear()
        batch, self.engine.batch = self.engine.batch, Batch()
        self._taken.set()
        return batch

    def _fire_timers(self, now: datetime) -> None:
        for item in self.engine.timers.take_due(self._clock.boottime()):
            if isinstance(item, Wake):
                due = DelayElapsed(task_no=item.task_no, attempt=item.attempt, job_attempt=item.job_attempt, at=now)
                self.engine.step(item.live, due)
            elif item.live.watch_number == item.number:
                self.engine.step(item.live, JobTimedOut(job_attempt=item.job_attempt, at=now))

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((at for at in (self.engine.timers.next_due(), self.engine.retry_at) if at is not None), default=None)
        self.engine.retry_at = None
        if due is not None:
            delay_s = max(0.0, due - self._clock.boottime())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake.set)

    def drop_shards(self, shards: list[LiveShard], why: str) -> None:
        """Forgets shards whose memory ran ahead of the database."""
        dropped = [shard for shard in shards if not shard.is_dropped]
        for shard in dropped:
            self.drop(shard)
        self.on_drop(dropped, why)

    def drop(self, shard: LiveShard) -> None:
        """Forgets one shard: nothing of it is committed, dispatched or published any more."""
        if shard.is_dropped:
            return
        shard.is_dropped = True
        self.detach(shard)
        for live in shard.jobs.values():
            live.is_void = True
        batch = self.engine.batch
        self.claiming.difference_update(shard.jobs)
        self._claimed(live for live in batch.claims if live.shard is shard)
        batch.forget_shard(shard)

    def detach(self, shard: LiveShard) -> None:
        """Stops stepping a shard; what its jobs became so far is committed as ever."""
        if self.shards.get(shard.number) is shard:
            del self.shards[shard.number]
        for live in shard.jobs.values():
            self.engine.forget(live)
        for key in [*shard.in_flight, *shard.inherited]:
            self.engine.release(shard, key)

    def _claimed(self, jobs: Iterable[LiveJob]) -> None:
        self.claiming.difference_update([live.id for live in jobs])

    def drop_jobs(self, jobs: list[LiveJob]) -> None:
        """Forgets jobs whose claim does not hold: another hand changed them first."""
        job_ids = {live.id for live in jobs}
        self.claiming -= job_ids
        for live in jobs:
            live.is_void = True
            if live.shard.jobs.get(live.id) is live:
                del live.shard.jobs[live.id]
                self.engine.forget(live)
        for shard in {live.shard for live in jobs}:
            for key in [key for key in shard.in_flight if key[0] in job_ids]:
                self.engine.release(shard, key)
        self.engine.batch.forget(job_ids)

    def poison(self, jobs: list[LiveJob], attempts: set[AttemptKey]) -> None:
        """Loads the shards again of attempts whose results the database refuses; the attempts will fail."""
        self.poisoned |= attempts
        self.drop_shards(list({live.shard: None for live in jobs}), "the database refuses a result")

    def unsendable(self, event: Event, why: str) -> None:
        """Fails the attempt whose dispatch the broker can never carry."""
        if isinstance(event, TaskDispatched):
            key = (event.job_id, event.task_no, event.attempt)
            self.put(lambda now: self._fail_unsent(event.shard, key, why, now))

    def _fail_unsent(self, number: int, key: AttemptKey, why: str, now: datetime) -> None:
        shard = self.shards.get(number)
        if shard is not None:
            self.intake.fail(shard, key, f"the dispatch cannot be sent: {why}", now)
