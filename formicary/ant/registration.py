"""Who the ant is: its incarnations, and what it tells the queens about itself."""

import os
import socket
from collections.abc import Callable, Iterable

import msgspec

from executors.base import Offer
from formicary.ant.assignments import Assignment, Phase
from formicary.ant.config import AntConfig
from formicary.bus import Bus, Outgoing
from formicary.clock import Clock
from formicary.events import topics
from formicary.events.ants import AntLeft, AntRegistered, WorkerOffer
from formicary.ids import AntId, Incarnation, in_place, new_incarnation


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one process from another: its name, and how it names its incarnations."""

    process: str = msgspec.field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    new_incarnation: Callable[[AntId], Incarnation] = new_incarnation


class Registration:
    """The present incarnation of one ant, and its announcements."""

    def __init__(self, bus: Bus, clock: Clock, config: AntConfig, identity: Identity | None = None) -> None:
        self._bus = bus
        self._clock = clock
        self._config = config
        self._methods: tuple[str, ...] = ()
        self._in_process: tuple[str, ...] = ()
        self._workers: tuple[WorkerOffer, ...] = ()
        #: Counts the changes of ``workers``, so that queens take the newest and notice that they missed one.
        self.version = 0
        self.is_announced = False
        self._identity = identity or Identity()
        #: Lives of former ants of this id, which are over: queens that missed their end learn of it.
        self.former: tuple[Incarnation, ...] = ()
        self._place = ""
        self.incarnation: Incarnation = self._identity.new_incarnation(config.id)

    @property
    def prefetch(self) -> int:
        """Returns how many accepted attempts may wait."""
        return self._config.prefetch_for(self._in_process)

    @property
    def inbox_topic(self) -> str:
        """Returns where dispatches for this ant go."""
        return topics.inbox(self._config.id, self._config.topics_are_dear)

    def offer(self, methods: tuple[str, ...], in_process_methods: tuple[str, ...]) -> None:
        """Sets what the ant can run."""
        self._methods, self._in_process = methods, in_process_methods

    def settle(self, place: str) -> None:
        """Names the place that all incarnations of this ant have; said once, before anybody hears of the first."""
        self._place = place
        self.incarnation = in_place(self.incarnation, place)

    def offer_workers(self, offers: Iterable[Offer]) -> None:
        """Sets what the remote workers take that are connected now."""
        self._workers = tuple(WorkerOffer(offer.methods, offer.tags) for offer in offers)
        self.version += 1

    def renew(self) -> Incarnation:
        """Begins a new incarnation and returns it."""
        self.incarnation = in_place(self._identity.new_incarnation(self._config.id), self._place)
        return self.incarnation

    async def announce(self) -> None:
        """Registers; may be said again at any time. The inbox position must be fixed by now."""
        config = self._config
        self.is_announced = True
        event = AntRegistered(
            ant_id=config.id,
            incarnation=self.incarnation,
            inbox_topic=self.inbox_topic,
            inbox_key=config.id,
            methods=self._methods,
            in_process_methods=self._in_process,
            tags=config.tags,
            groups=config.groups,
            slots=config.slots,
            prefetch=self.prefetch,
            process=self._identity.process,
            sent_at=self._clock.now(),
            former=self.former,
            workers=self._workers,
            version=self.version,
        )
        await self._bus.publish([Outgoing(topics.ANTS, config.id, event)])

    async def leave(self, incarnation: Incarnation, unfinished: Iterable[Assignment]) -> None:
        """Says that an incarnation is over and that none of its attempts runs."""
        held = {assignment.held(): assignment.phase for assignment in unfinished}
        event = AntLeft(
            ant_id=self._config.id,
            incarnation=incarnation,
            attempts=tuple(held),
            unbegun=tuple(one for one, phase in held.items() if phase is Phase.WAITING),
        )
        await self._bus.publish([Outgoing(topics.ANTS, self._config.id, event)])
