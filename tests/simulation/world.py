"""One run: a colony in a pretended world, disturbed for a while, then left alone until every job has ended."""

import asyncio
import gc
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import structlog

from brokers.base import Message
from formicary.ant.ant import Ant
from formicary.errors import FormicaryError, UnavailableError
from formicary.ids import JobId, QueenId
from formicary.queen.supervisor.supervisor import Supervisor
from formicary.store.rows import JournalBatch, LeaseRow
from tests.simulation.broker import LogServer
from tests.simulation.chaos import CHAOS_END_S, Chaos
from tests.simulation.checker import Checker
from tests.simulation.database import MemoryDatabase
from tests.simulation.hosts import ANT_LEASE_S, AntHost, Host, QueenHost
from tests.simulation.loop import EPOCH, BusyLoopError, Life, Process, VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.network import Weather
from tests.simulation.scenario import SHARDS, SOURCES, Submission, definitions, submissions
from tests.simulation.stores import MemoryJournal
from tests.simulation.trace import Trace

#: Virtual seconds within which every job must have ended once nothing is disturbed any more.
PATIENCE_S: Final = 120.0
#: Virtual seconds that a run goes on after the last end: late echoes must change nothing.
ECHO_S: Final = 2.0


class WatchedDatabase(MemoryDatabase):
    """Tells the checker what it does."""

    checker: Checker

    def journal_commit(self, incarnation: str, number: int, batch: JournalBatch) -> None:
        """Commits, and says so."""
        super().journal_commit(incarnation, number, batch)
        self.checker.committed(incarnation, batch)

    def take(
        self,
        names: Collection[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        only_lapsed: bool,
        limit: int | None,
    ) -> list[LeaseRow]:
        """Gives leases, and says so."""
        rows = super().take(names, owner, incarnation, lease_s, only_lapsed, limit)
        self.checker.took(rows)
        return rows

    def raise_epoch(self, epochs: "dict[str, int]", incarnation: str) -> list[LeaseRow]:  # type: ignore[override]  # asked with dicts only
        """Raises epochs, and says so."""
        rows = super().raise_epoch(epochs, incarnation)
        self.checker.took(rows)
        return rows

    def claim_ready(self, job_ids: Collection[JobId], leader_epoch: int) -> list[JobId]:
        """Claims, and has the history checked."""
        before = len(self.history)
        claimed = super().claim_ready(job_ids, leader_epoch)
        for entry in self.history[before:]:
            self.checker.check_history(entry)
        self.checker.check_concurrency()
        return claimed


@dataclass(frozen=True)
class Parts:
    """What a run is built of; a planted bug replaces one of them."""

    database: type[WatchedDatabase] = WatchedDatabase
    journal: type[MemoryJournal] = MemoryJournal
    supervisor: type[Supervisor] = Supervisor
    ant: type[Ant] = Ant
    machine: type[Machine] = Machine
    sources: tuple[str, ...] = SOURCES
    #: What the ants are set to; the queens are always set to ``ANT_LEASE_S``.
    ant_lease_s: float = ANT_LEASE_S


@dataclass(frozen=True)
class Report:
    """What a run showed."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    lines: Sequence[str] = field(repr=False)
    virtual_s: float
    callbacks: int
    counts: Mapping[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """Says what was broken first, and how to see it again."""
        first = self.violations[0] if self.violations else "nothing is broken"
        return f"seed {self.seed}: {first} ({len(self.violations)})\n  python -m tests.simulation --seed {self.seed}"


class World:
    """Everything of one run."""

    def __init__(self, seed: int, parts: Parts, *, is_calm: bool, log_level: str) -> None:
        rng = Random(seed)
        self.rng = rng
        self.parts = parts
        self.log_level = log_level
        self.loop = VirtualLoop()
        self.trace = Trace(self.loop)
        self.weather = Weather(rng)
        self.processes: list[Process] = []
        self.accepted: set[JobId] = set()
        self.topics_are_dear = rng.random() < 0.3
        slots: dict[str, int] = {}
        self.checker = Checker(self.trace, slots, ANT_LEASE_S)
        self.server = LogServer(self.loop, self.weather, self._appended)
        self.database = parts.database(SHARDS, self._database_time)
        self.database.checker = self.checker
        self.checker.database = self.database
        known = definitions(parts.sources)
        for record, limit in known:
            self.database.add_definition(record, limit)
        self.queens = [QueenHost(self, f"queen{number}", rng) for number in range(1, rng.choice((1, 2, 2, 2, 3)) + 1)]
        self.ants = [AntHost(self, f"ant{number}", rng) for number in range(1, rng.choice((2, 2, 3)) + 1)]
        slots.update({ant.name: ant.slots for ant in self.ants})
        self.submissions = submissions(rng, known)
        self._is_over = False
        #: What people asked for and was not taken yet.
        self._open_count = len(self.submissions) + sum(len(item.commands) for item in self.submissions)
        self.loop.set_exception_handler(self._defect)
        self._chaos = None if is_calm else Chaos(self, rng)

    def _database_time(self) -> datetime:
        return EPOCH + timedelta(seconds=round(self.loop.now, 6))

    def _appended(self, message: Message) -> None:
        self.checker.now = self.loop.now
        self.checker.appended(message)

    @property
    def hosts(self) -> list[Host]:
        """Returns all machines."""
        return [*self.queens, *self.ants]

    def died(self, host: Host) -> None:
        """A process is dead; somebody starts it again after a while."""
        if self._is_over:
            return
        process = host.process
        self.trace.add(f"{process.name if process is not None else host.name} is dead")
        self.loop.world_later(self.rng.uniform(0.3, 4.0), self._restart, host)

    def _restart(self, host: Host) -> None:
        if not self._is_over:
            host.start()

    def ended(self, host: Host, error: Exception) -> None:
        """A process ended by an exception: only what its surroundings did to it may do that."""
        if self._is_over:
            return
        self.trace.add(f"{host.name} ends: {error!r}")
        unexpected = [leaf for leaf in _leaves(error) if not isinstance(leaf, FormicaryError)]
        if unexpected:
            self.checker.violate(f"{host.name} ended by a defect: {unexpected[0]!r}")

    async def main(self) -> None:
        """Is the run."""
        for host in self.hosts:
            host.start()
        for submission in self.submissions:
            self.loop.world_later(submission.at_s, self._submit, submission)
            for at_s, kind in submission.commands:
                self.loop.world_later(at_s, self._command, submission.job_id, kind)
        if self._chaos is not None:
            self._chaos.begin()
            await self._until(CHAOS_END_S)
            self._chaos.end()
        else:
            await self._until(self.submissions[-1].at_s + 1.0)
        deadline = self.loop.now + PATIENCE_S
        while self.loop.now < deadline and not self._are_all_done():
            self._resume_forgotten()
            await self._until(self.loop.now + 1.0)
        await self._until(self.loop.now + ECHO_S)
        self.checker.finish()

    def _resume_forgotten(self) -> None:
        """Resumes jobs whose commands came in another order than they were meant to."""
        open_jobs = {command.row.job_id for command in self.database.commands.values() if not command.is_done}
        for job in self.database.jobs.values():
            if job.record.state == "PAUSED" and job.record.id not in open_jobs and not self._open_count:
                self._open_count += 1
                self._command(job.record.id, "resume")

    def _are_all_done(self) -> bool:
        jobs = self.database.jobs
        is_in = self._open_count == 0
        is_answered = all(command.is_done for command in self.database.commands.values())
        return is_in and is_answered and all(job.record.finished_at is not None for job in jobs.values())

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.loop.now))

    def _submit(self, submission: Submission) -> None:
        self._ask(
            lambda queen: queen.submit(submission),
            lambda: submission.job_id in self.accepted,
            f"submit {submission.job_id[-4:]}",
        )

    def _command(self, job_id: JobId, kind: str) -> None:
        done: list[bool] = []

        async def command(queen: QueenHost) -> None:
            await queen.command(job_id, kind)
            done.append(True)

        if job_id in self.database.jobs:
            self._ask(command, lambda: bool(done), f"{kind} {job_id[-4:]}")
        else:
            self.loop.world_later(0.5, self._command, job_id, kind)

    def _ask(
        self, work: Callable[[QueenHost], Coroutine[None, None, None]], is_done: Callable[[], bool], what: str
    ) -> None:
        """Asks one queen after the other until it is done, as a client does."""
        if is_done():
            self._open_count -= 1
        if is_done() or self._is_over:
            return
        queen = self.rng.choice(self.queens)

        async def attempt() -> None:
            with suppress(UnavailableError):
                await work(queen)

        if queen.process is not None and queen.process.life is Life.RUNNING:
            self.trace.add(f"{queen.name} is asked to {what}")
            queen.process.spawn(attempt())
        self.loop.world_later(self.rng.uniform(1.0, 3.0), self._ask, work, is_done, what)

    def _defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody took."""
        error = context.get("exception")
        if not self._is_over and not isinstance(error, FormicaryError):
            self.checker.violate(f"a defect: {context['message']}: {error!r}")

    def unload(self) -> None:
        """Ends what is left, without a trace."""
        self._is_over = True
        self.trace.end()
        for host in self.hosts:
            for road in host.roads():
                road.is_over = True
        for process in self.processes:
            process.unload()
        for _ in range(100):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def run(seed: int, parts: Parts | None = None, *, is_calm: bool = False, log_level: str = "critical") -> Report:
    """Runs one seed, and says what it showed. Exactly repeatable."""
    world = World(seed, parts or Parts(), is_calm=is_calm, log_level=log_level)
    with _quiet(world):
        try:
            world.loop.run_until_complete(world.main())
        except BusyLoopError as error:
            world.checker.violate(str(error))
        report = Report(
            seed=seed,
            violations=tuple(world.checker.violations),
            digest=world.trace.digest(),
            lines=world.trace.lines,
            virtual_s=world.loop.now,
            callbacks=world.loop.callbacks,
            counts=dict(world.checker.counts),
        )
        world.unload()
    return report


@contextmanager
def _quiet(world: World) -> Iterator[None]:
    """Has logs go into the trace, from the level asked for, and the collector of garbage stand still."""

    def note(_: object, method: str, event: MutableMapping[str, object]) -> str:
        process = world.loop.current
        words = " ".join(f"{key}={value}" for key, value in event.items())
        world.trace.add(f"{'' if process is None else process.name} {method} {words}")
        raise structlog.DropEvent

    former = structlog.get_config()
    level = {"debug": 10, "info": 20, "warning": 30, "critical": 50}[world.log_level]
    structlog.configure(
        processors=[note], wrapper_class=structlog.make_filtering_bound_logger(level), cache_logger_on_first_use=False
    )
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        structlog.configure(**former)
