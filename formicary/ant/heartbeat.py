"""Heartbeats to the queens, and their answers."""

import asyncio
from collections.abc import Callable

from brokers.errors import BrokerUnavailableError
from formicary.ant.acceptance import Acceptance
from formicary.ant.assignments import Assignments
from formicary.ant.config import AntConfig
from formicary.ant.leases import Leases
from formicary.ant.registration import Registration
from formicary.ant.slots import Slots
from formicary.bus import Bus, BusSubscription, Outgoing
from formicary.clock import Clock
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, HeartbeatsSeen
from formicary.ids import QueenId
from formicary.outage import Outage
from formicary.service import Service

_RECEIVE_S = 30.0
_RETRY_S = 0.2


class Heartbeats(Service):
    """Sends what the ant holds and has room for, regularly and when poked."""

    def __init__(
        self,
        *,
        bus: Bus,
        clock: Clock,
        config: AntConfig,
        registration: Registration,
        leases: Leases,
        slots: Slots,
        assignments: Assignments,
        acceptance: Acceptance,
    ) -> None:
        super().__init__()
        self._bus = bus
        self._clock = clock
        self._config = config
        self._registration = registration
        self._leases = leases
        self._slots = slots
        self._assignments = assignments
        self._acceptance = acceptance
        self._sequence = 0
        self._owners: dict[QueenId, float] = {}
        self._poked = asyncio.Event()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self.beat()
            self.started.set()
            await self._pause()

    def poke(self) -> None:
        """Has the next heartbeat leave at once."""
        self._poked.set()

    def note_owner(self, queen_id: QueenId) -> None:
        """Notes that a queen owns shards: each gets its part of the free slots."""
        self._owners[queen_id] = self._clock.boottime()

    async def beat(self) -> None:
        """Sends one heartbeat; its time of sending is taken before the publish begins."""
        self._sequence += 1
        self._leases.note_sent(self._sequence, self._clock.boottime())
        event = AntHeartbeat(
            ant_id=self._config.id,
            incarnation=self._registration.incarnation,
            sequence=self._sequence,
            slots_free=self._share(),
            is_draining=self._acceptance.is_draining,
            held=self._assignments.held(),
            epochs=dict(self._leases.epochs),
            sent_at=self._clock.now(),
            version=self._registration.version,
        )
        await self._bus.publish([Outgoing(topics.ANTS, self._config.id, event)])

    def _share(self) -> int:
        """Returns the free slots that one owner may count on; those that fell silent get none."""
        oldest = self._clock.boottime() - self._config.lease_s
        self._owners = {queen_id: at for queen_id, at in self._owners.items() if at >= oldest}
        return -(-self._slots.free // max(1, len(self._owners)))

    async def _pause(self) -> None:
        sleep = asyncio.ensure_future(self._clock.sleep(self._leases.heartbeat_s))
        poked = asyncio.ensure_future(self._poked.wait())
        try:
            await asyncio.wait({sleep, poked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            poked.cancel()
        self._poked.clear()


class Answers(Service):
    """Listens to what owners answer; ``open`` before the ant registers, so that no answer is missed."""

    def __init__(self, bus: Bus, clock: Clock, config: AntConfig, handle: Callable[[HeartbeatsSeen], None]) -> None:
        super().__init__()
        self._bus = bus
        self._clock = clock
        self._config = config
        self._handle = handle
        self._subscription: BusSubscription | None = None
        self._outage = Outage("answers_wait_for_broker", clock.boottime)

    async def open(self) -> None:
        """Listens from now on."""
        self._subscription = await self._bus.subscribe([topics.ANSWERS], None, self._config.id)

    async def run(self) -> None:
        """Hands answers on until cancelled."""
        if self._subscription is None:
            await self.open()
        self.started.set()
        try:
            while True:
                await self._receive_once()
        finally:
            if self._subscription is not None:
                await self._subscription.close()

    async def _receive_once(self) -> None:
        if self._subscription is None:
            return
        try:
            received = await self._subscription.receive(100, _RECEIVE_S)
        except BrokerUnavailableError as exc:
            self._outage.note(exc.reason)
            await self._clock.sleep(_RETRY_S)
            return
        self._outage.over()
        for item in received:
            for event in item.events:
                if isinstance(event, HeartbeatsSeen):
                    self._handle(event)
