"""Listens to ants and answers their heartbeats once a second (``protocol.md`` 5)."""

import asyncio
import math
from collections.abc import Callable

import structlog

from formicary.bus import Bus, BusSubscription, Outgoing
from formicary.clock import Clock
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, AntLeft, AntRegistered, HeartbeatsSeen
from formicary.events.base import Event
from formicary.events.jobs import LeasesReleased
from formicary.ids import Incarnation, QueenId
from formicary.queen.registry import AntRegistry, LiveAnt

log = structlog.get_logger(__name__)

#: Between two answers, in seconds; less where the ants' leases are so short that they would end meanwhile.
ANSWER_S = 1.0
ANSWERS_PER_LEASE = 5
#: A longer time without an answer that left means that this queen was cut off, or slept: it heard nobody either.
CUT_OFF_S = 5.0


class AntDesk:
    """Keeps the registry true and the ants' leases alive.

    Args:
        ant_lease_s: how long the ants' leases last.
        valid_epochs: the shards, with their epochs, for which this queen may answer now.
        changed: called when ants came, left or were heard, so that waiting tasks and open attempts are looked at.
    """

    def __init__(
        self,
        queen_id: QueenId,
        bus: Bus,
        registry: AntRegistry,
        clock: Clock,
        ant_lease_s: float,
        valid_epochs: Callable[[], dict[int, int]],
        changed: Callable[[], None],
    ) -> None:
        self._queen_id = queen_id
        self._bus = bus
        self._registry = registry
        self._clock = clock
        self._ant_lease_s = ant_lease_s
        self._answer_s = min(ANSWER_S, ant_lease_s / ANSWERS_PER_LEASE)
        self._valid_epochs = valid_epochs
        self._changed = changed
        #: Called when another queen said that leases are free.
        self.on_released: Callable[[], None] = lambda: None
        self._refused: dict[Incarnation, str] = {}
        #: Incarnations that may be gone, each with the one of another process that registered under its id since.
        self._doubtful: dict[Incarnation, Incarnation] = {}
        self._strangers = True
        self._subscription: BusSubscription | None = None
        self._answered_at = -math.inf
        self._listening_since = -math.inf

    async def open(self) -> None:
        """Begins to listen; the first answer asks every ant to register."""
        self._subscription = await self._bus.broadcast([topics.ANTS])

    async def run(self) -> None:
        """Listens and answers until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._answer_regularly())
        finally:
            if self._subscription is not None:
                await self._subscription.close()

    def listening_since(self) -> float | None:
        """Returns since when (boot time) answers left without a gap, so that ants are heard; None while cut off."""
        is_cut_off = self._clock.boottime() - self._answered_at > CUT_OFF_S
        return None if is_cut_off else self._listening_since

    async def answer(self) -> None:
        """Sends one answer to all ants."""
        event = HeartbeatsSeen(
            queen_id=self._queen_id,
            epochs=self._valid_epochs(),
            sequences=self._registry.sequences(),
            lost=self._registry.lost(),
            refused=self._refused,
            wants_registrations=self._strangers,
            ant_lease_s=self._ant_lease_s,
        )
        self._refused, self._strangers = {}, False
        await self._bus.publish([Outgoing(topics.ANSWERS, self._queen_id, event)])
        self._note_answered()

    def _note_answered(self) -> None:
        now = self._clock.boottime()
        if now - self._answered_at > CUT_OFF_S:
            self._listening_since = now
        self._answered_at = now

    async def _answer_regularly(self) -> None:
        while True:
            await self.answer()
            await self._clock.sleep(self._answer_s)

    async def _listen(self) -> None:
        assert self._subscription is not None
        while True:
            received = await self._subscription.receive(1000, timeout_s=30.0)
            news = [self._take(event) for delivery in received for event in delivery.events]
            if any(news):
                await self.answer()
                self._changed()

    def _take(self, event: Event) -> bool:
        """Returns whether the event wants an answer at once."""
        match event:
            case AntRegistered():
                return self._registered(event)
            case AntHeartbeat():
                return self._heard(event)
            case AntLeft():
                self._registry.note_unbegun(event.incarnation, event.unbegun)
                self._lose(event.incarnation)
                return True
            case LeasesReleased():
                if event.queen_id != self._queen_id:
                    self.on_released()
                return False
            case _:
                return False

    def _lose(self, incarnation: Incarnation) -> None:
        if not self._registry.is_lost(incarnation):
            counts = self._registry.was_heard_since(incarnation, self.listening_since())
            self._registry.lose(incarnation, counts=counts)
            log.info("ant_left", incarnation=incarnation)

    def _registered(self, event: AntRegistered) -> bool:
        for former in event.former:
            self._lose(former)
        holder = None if self._registry.get(event.incarnation) else self._registry.holder_of(event)
        if holder is not None and self._is_heard(holder):
            self._refused[event.incarnation] = holder.registration.process
            return True
        if self._registry.register(event, self._clock.boottime()) is None:
            return self._registry.update(event) or self._registry.is_lost(event.incarnation)
        if holder is not None:
            live = {old: new for old, new in self._doubtful.items() if self._registry.get(old)}
            self._doubtful = {**live, holder.incarnation: event.incarnation}
        log.info("ant_registered", ant_id=event.ant_id, methods=event.methods, slots=event.slots)
        return True

    def _is_heard(self, ant: LiveAnt) -> bool:
        """Says whether an ant was heard since this queen hears again; before that it may have gone unnoticed."""
        return self._registry.was_heard_since(ant.incarnation, self.listening_since())

    def _refuse_rival(self, ant: LiveAnt) -> bool:
        """Refuses who registered under the id of an ant that turns out to be there; returns whether there is one."""
        rival = self._registry.get(self._doubtful.pop(ant.incarnation, None))
        if rival is not None:
            self._refused[rival.incarnation] = ant.registration.process
        return rival is not None

    def _heard(self, event: AntHeartbeat) -> bool:
        ant = self._registry.heard(event, self._clock.boottime(), self._valid_epochs())
        if ant is None:
            self._strangers = self._strangers or not self._registry.is_lost(event.incarnation)
            return True
        if ant.registration.version < event.version:  # it registered again, and this queen did not hear it
            self._strangers = True
            return True
        if self._doubtful and self._refuse_rival(ant):
            return True
        return event.sequence <= FIRST_HEARTBEATS


#: Heartbeats of a new incarnation that are answered at once, so that it may work soon.
FIRST_HEARTBEATS = 2
