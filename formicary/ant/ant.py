"""The ant: composes its parts and keeps their order.

Start: the warden (it waits for the work of a former ant of this id) -> executors checked -> the inbox's position fixed
-> answers heard -> registered -> heartbeats. End by ``drain``: nothing new, what waits is handed back, what runs
finishes, all reports confirmed, farewell. End by ``stop``: what runs is ended without grace and given away by the
farewell (``AntLeft``), so it costs its tasks nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from executors.base import Executor, Offer
from executors.errors import ExecutorError
from formicary.ant.acceptance import Acceptance
from formicary.ant.assignments import Assignment, Assignments, Phase
from formicary.ant.caches import Caches
from formicary.ant.config import AntConfig
from formicary.ant.errors import AntIdHeldError, WardenLostError
from formicary.ant.folders import Folders
from formicary.ant.heartbeat import Answers, Heartbeats
from formicary.ant.inbox import Inbox
from formicary.ant.intake import Intake
from formicary.ant.leases import Leases
from formicary.ant.logs import LogShipper
from formicary.ant.registration import Identity, Registration
from formicary.ant.reporter import Reporter
from formicary.ant.runner import Runner
from formicary.ant.slots import Slots
from formicary.ant.transfer import Transfer
from formicary.ant.wardship import Wardship
from formicary.artifacts.base import ArtifactStore
from formicary.bus import Bus
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.events.ants import HeartbeatsSeen
from formicary.ids import Incarnation
from formicary.service import Service

log = structlog.get_logger(__name__)

#: What a stopped ant gives its last words, in seconds.
FAREWELL_S: Final = 2.0
#: What a stopped ant gives its attempts to end after KILL, in seconds.
_END_S: Final = 10.0


class Ant(Service):
    """Accepts dispatches, runs them, reports their end. Installs no signal handlers.

    Args:
        executors: by method; checked at the start, those that cannot work here are not offered. Closed at the end.
        identity: None: this process.
        make_wardship: makes the connection to the warden, given whom to tell of a lapse.
    """

    def __init__(
        self,
        bus: Bus,
        executors: Mapping[str, Executor],
        artifacts: ArtifactStore,
        config: AntConfig,
        clock: Clock,
        *,
        identity: Identity | None = None,
        make_wardship: Callable[[AntConfig, Callable[[Incarnation], None]], Wardship] = Wardship,
    ) -> None:
        super().__init__()
        self._config = config
        self._clock = clock
        self._executors = dict(executors)
        self._offered: dict[str, Executor] = {}
        in_process = {method for method, executor in executors.items() if executor.is_in_process}
        self.registration = Registration(bus, clock, config, identity)
        self._leases = Leases(config.lease_s, can_lapse=config.survives_process)
        self._assignments = Assignments()
        self._slots = Slots(config.slots, config.prefetch_for(in_process))
        self._acceptance = Acceptance(self._leases, self._slots)
        self._wardship = make_wardship(config, self._on_lapse)
        self._folders = Folders(config.folder, config.home if config.is_home_passable else None)
        self._shipper = LogShipper(bus, clock, config.log_limit_bytes)
        self._reporter = Reporter(bus, clock, self._assignments, self._slots)
        self._runner = self._make_runner(artifacts)
        self._intake = self._make_intake()
        self._inbox = Inbox(bus, clock, self.registration.inbox_topic, config.topics_are_dear, self._intake.handle)
        self._answers = Answers(bus, clock, config, self._on_answer)
        self._heartbeats = self._make_heartbeats(bus)
        self._renewals: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self._drain_asked = asyncio.Event()
        #: An incarnation is over, but not all of its work, and the warden does not know the next one yet: whoever comes
        #: after this process could not name it among its former lives.
        self._is_between_lives = False

    async def run(self) -> None:
        """Serves until drained, stopped or unable to keep its promises.

        Raises:
            AntIdHeldError: another live process serves under this id.
            WardenLostError: the warden is gone; all work was ended.
        """
        self._failure = asyncio.get_running_loop().create_future()
        try:
            await self._open()
            self.started.set()
            await self._serve()
        finally:
            farewell = asyncio.ensure_future(self._leave())
            with suppress(asyncio.CancelledError):
                await asyncio.shield(farewell)
            await farewell

    async def drain(self) -> None:
        """Takes nothing new, hands back what waits, finishes what runs, leaves; returns when it has left.

        Raises:
            FormicaryError: what ended the ant before it was drained.
        """
        self._acceptance.is_draining = True
        self._intake.hand_back()
        self._heartbeats.poke()
        self._drain_asked.set()
        await self.wait()

    @property
    def slots_free(self) -> int:
        """Returns how many slots neither a running nor a waiting attempt takes."""
        return self._slots.free

    def _make_runner(self, artifacts: ArtifactStore) -> Runner:
        return Runner(
            folders=self._folders,
            transfer=Transfer(artifacts),
            caches=Caches(artifacts, self._clock, self._config.cache_limit_bytes),
            shipper=self._shipper,
            reporter=self._reporter,
            slots=self._slots,
            wardship=self._wardship,
            clock=self._clock,
        )

    def _make_intake(self) -> Intake:
        return Intake(
            config=self._config,
            clock=self._clock,
            executors=self._offered,
            registration=self.registration,
            acceptance=self._acceptance,
            assignments=self._assignments,
            slots=self._slots,
            runner=self._runner,
            reporter=self._reporter,
        )

    def _make_heartbeats(self, bus: Bus) -> Heartbeats:
        return Heartbeats(
            bus=bus,
            clock=self._clock,
            config=self._config,
            registration=self.registration,
            leases=self._leases,
            slots=self._slots,
            assignments=self._assignments,
            acceptance=self._acceptance,
        )

    async def _open(self) -> None:
        await self._wardship.start()
        self.registration.former = self._wardship.former
        await asyncio.to_thread(self._folders.open)
        await self._check_executors()
        self._wardship.begin(self.registration.incarnation)
        await self._shipper.start()
        await self._reporter.start()
        await self._inbox.open()
        await self._answers.open()
        await self.registration.announce()
        for service in (self._answers, self._heartbeats, self._inbox):
            await service.start()
        log.info("ant_ready", ant_id=self._config.id, methods=sorted(self._offered), slots=self._config.slots)

    async def _check_executors(self) -> None:
        wanted = self._config.methods
        for executor in dict.fromkeys(self._executors.values()):
            methods = [method for method, other in self._executors.items() if other is executor]
            executor.watch_offers(self._on_offers)
            try:
                await executor.check()
            except ExecutorError as exc:
                log.warning("methods_not_offered", methods=methods, reason=str(exc))
                continue
            self._offered.update({method: executor for method in methods if wanted is None or method in wanted})
        in_process = tuple(method for method, executor in self._offered.items() if executor.is_in_process)
        self.registration.offer(tuple(self._offered), in_process)
        for executor in self._offered.values():
            executor.lives_over(self.registration.former)
        self.registration.settle("".join(sorted({executor.place for executor in self._offered.values()})))

    async def _serve(self) -> None:
        """Returns when drained; raises when a part of the ant ends."""
        parts = (self._shipper, self._reporter, self._inbox, self._answers, self._heartbeats)
        waits = {asyncio.ensure_future(part.wait()) for part in parts}
        waits |= {asyncio.ensure_future(self._drained()), asyncio.ensure_future(self._warden_lost())}
        failure = self._failure
        if failure is None:
            return
        try:
            await asyncio.wait({*waits, failure}, return_when=asyncio.FIRST_COMPLETED)
            for done in (item for item in {*waits, failure} if item.done()):
                done.result()
        finally:
            for item in waits:
                item.cancel()

    async def _warden_lost(self) -> None:
        await self._wardship.is_lost.wait()
        raise WardenLostError(self._config.id, "it ended by itself")

    async def _drained(self) -> None:
        await self._drain_asked.wait()
        await self._intake.idle()
        await self._reporter.drained()

    async def _leave(self) -> None:
        """Ends everything, in order; safe from any state that ``_open`` can leave behind."""
        self._acceptance.is_draining = True
        for service in (self._inbox, self._answers, self._heartbeats):
            await service.stop()
        unfinished = self._intake.abandon()
        await self._end_work()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_S):
                await self._say_farewell(unfinished)
        for renewal in self._renewals:
            renewal.cancel()
        await self._runner.close()
        await self._shipper.stop()
        await self._reporter.stop()
        await self._wardship.close()
        for executor in dict.fromkeys(self._executors.values()):
            await executor.close()
        log.info("ant_left", ant_id=self._config.id, unfinished=len(unfinished))

    async def _end_work(self) -> None:
        """Waits for the end of what was stopped; what resists is the warden's to kill."""
        if not self._intake.workers:
            return
        await self._wardship.end(self.registration.incarnation)
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._intake.idle()
        for worker in set(self._intake.workers):
            worker.cancel()

    async def _say_farewell(self, unfinished: list[Assignment]) -> None:
        if not self.started.is_set():
            return
        await self._reporter.drained()
        await self.registration.leave(self.registration.incarnation, unfinished)

    def _on_answer(self, seen: HeartbeatsSeen) -> None:
        incarnation = self.registration.incarnation
        for executor in self._offered.values() if seen.lost else ():
            executor.lives_over(seen.lost)
        if (holder := seen.refused.get(incarnation)) is not None:
            self._fail(AntIdHeldError(self._config.id, holder))
            return
        if incarnation in seen.lost:
            self._end_incarnation(incarnation)
            return
        if seen.epochs:
            self._heartbeats.note_owner(seen.queen_id)
        is_newer = [self._leases.note_epoch(shard, epoch) for shard, epoch in seen.epochs.items()]
        if any(is_newer):
            self._heartbeats.poke()
        now = self._clock.boottime()
        sequence = seen.sequences.get(incarnation)
        if sequence is not None and not self._leases.has_lapsed(now):
            prolonged = self._leases.note_answer(seen.epochs, sequence, now, seen.ant_lease_s)
            self._wardship.prolong(incarnation, prolonged)
        if seen.wants_registrations:
            self._spawn(self._announce())

    def _on_offers(self, offers: tuple[Offer, ...]) -> None:
        self.registration.offer_workers(offers)
        if self.registration.is_announced and not self._acceptance.is_draining:
            self._spawn(self._announce())

    def _on_lapse(self, incarnation: Incarnation) -> None:
        log.warning("ant_lease_lapsed", ant_id=self._config.id, incarnation=incarnation)
        self._end_incarnation(incarnation)

    async def _announce(self) -> None:
        """Registers; between two lives nothing is said, whoever asked: the next one is announced as it begins."""
        if self._is_between_lives:
            return
        await self.registration.announce()
        self._heartbeats.poke()

    def _end_incarnation(self, old: Incarnation) -> None:
        """Gives away everything of an incarnation that is over, and begins the next."""
        if self.registration.incarnation != old:
            return
        unfinished = self._intake.abandon()
        self._is_between_lives = True
        new = self.registration.renew()
        self._leases.begin()
        log.warning("ant_incarnation_over", ant_id=self._config.id, incarnation=old, unfinished=len(unfinished))
        self._spawn(self._begin_again(old, new, unfinished))

    async def _begin_again(self, old: Incarnation, new: Incarnation, unfinished: list[Assignment]) -> None:
        """Registers the new incarnation once nothing of the old one runs."""
        async with asyncio.TaskGroup() as group:  # its tasks begin in order: the warden hears of the end first
            group.create_task(self._wardship.end(old))
            group.create_task(self._end_in_process(old, unfinished))
        await self._ended(unfinished)
        self._wardship.begin(new)
        self._is_between_lives = False
        await self.registration.leave(old, unfinished)
        if not self._acceptance.is_draining:
            await self._announce()

    async def _end_in_process(self, old: Incarnation, unfinished: list[Assignment]) -> None:
        """Tells the warden when it need not end this process: containers and pods may take longer to go."""
        await self._runner.quiet([assignment for assignment in unfinished if assignment.executor.is_in_process])
        self._wardship.over(old)

    async def _ended(self, unfinished: list[Assignment]) -> None:
        while any(assignment.phase is Phase.RUNNING for assignment in unfinished):
            await asyncio.wait(set(self._intake.workers), return_when=asyncio.FIRST_COMPLETED)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    def _fail(self, error: FormicaryError) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
