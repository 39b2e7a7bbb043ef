"""Holds leases in the database: the shards of this queen, the leadership of the scheduler.

A lease is *valid* for this process until its life, counted from before the statement that took or renewed it, is over
by this machine's own clock; the database judges by its own, and every statement that matters checks the epoch.

Leases that are *spread* belong to all live queens in equal parts: each says in the database that it lives, takes no
more than its share of what is free, and is told of its surplus so that it can hand that over in order.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.ids import QueenId
from formicary.outage import Outage
from formicary.store.leases import LeaseStore
from formicary.store.rows import LeaseRow

log = structlog.get_logger(__name__)

#: Between two tries of the first round while the database is away, in seconds.
FIRST_ROUND_RETRY_S: Final = 0.5


class LeaseListener(Protocol):
    """Is told what was won and lost."""

    async def taken(self, row: LeaseRow) -> None:
        """The lease is this queen's, under the row's epoch."""
        ...

    def lost(self, name: str) -> None:
        """Another queen took the lease."""
        ...


def share_of(queen: QueenId, live: Sequence[QueenId], count: int) -> int:
    """Returns how many of ``count`` leases belong to ``queen``; the shares of all live ones add up to ``count``."""
    each, left = divmod(count, len(live))
    return each + (sorted(live).index(queen) < left)


class LeaseKeeper:
    """Takes lapsed leases among ``names`` and renews what it holds; ``run_once`` is one round.

    Args:
        is_spread: the leases are shared with the other live queens, instead of being taken by the first.
    """

    def __init__(
        self,
        store: LeaseStore,
        names: list[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        clock: Clock,
        listener: LeaseListener,
        *,
        is_spread: bool = False,
    ) -> None:
        self._store = store
        self._names = names
        self._owner = owner
        self._incarnation = incarnation
        self._lease_s = lease_s
        self._clock = clock
        self._outage = Outage("leases_not_renewed", clock.boottime)
        self._listener = listener
        self._is_spread = is_spread
        self._share = len(names)
        self._epochs: dict[str, int] = {}
        self._valid_until: dict[str, float] = {}
        #: Taken, and the listener not told yet: telling it can fail, and is then repeated.
        self._untold: list[LeaseRow] = []
        self._is_leaving = False
        #: One statement about leases at a time: what the answer to an older one says would undo a newer one.
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self.has_surplus = asyncio.Event()

    def is_valid(self, name: str) -> bool:
        """Says whether the lease is held and its life not over."""
        return self._clock.boottime() < self._valid_until.get(name, 0.0)

    def epoch(self, name: str) -> int | None:
        """Returns the epoch under which the lease is held."""
        return self._epochs.get(name)

    def surplus(self) -> list[str]:
        """Returns the leases that belong to other queens by now; this one holds them until it hands them over."""
        untold = {row.name for row in self._untold}
        return [name for name in self._names if name in self._epochs and name not in untold][self._share :]

    def wake(self) -> None:
        """Has the next round run at once: leases may be free."""
        self._wake.set()

    async def begin(self) -> None:
        """Runs the first round; a database that is away is waited out."""
        while not await self._try_once():
            await self._clock.sleep(FIRST_ROUND_RETRY_S)

    async def run(self) -> None:
        """Repeats ``run_once`` three times in a lease's life, and when woken; a database that is away is waited out."""
        while True:
            await self._pause()
            await self._try_once()

    async def _try_once(self) -> bool:
        try:
            await self.run_once()
        except UnavailableError as error:
            self._outage.note(str(error))
            return False
        self._outage.over()
        return True

    async def run_once(self) -> None:
        """Renews what is held, gives up what was taken by others, takes what is free."""
        await self._renew_and_take()
        while self._untold:
            row = self._untold[0]
            await self._listener.taken(row)
            self._untold = [other for other in self._untold if other is not row]
            if self._is_half_over(row):
                await self._renew_and_take()
        if self.surplus():
            self.has_surplus.set()

    async def _renew_and_take(self) -> None:
        async with self._turn:
            await self._renew()
            if self._is_leaving:
                return
            if self._is_spread:
                live = await self._store.present(self._owner, self._incarnation, self._lease_s)
                self._share = share_of(self._owner, live, len(self._names))
            wanted = [name for name in self._names if name not in self._epochs]
            room = self._share - len(self._epochs)
            if wanted and room > 0:
                await self._take(wanted, room)

    async def raise_epoch(self, name: str) -> LeaseRow | None:
        """Opens the next epoch of a lease, for a reload; None where it is no longer this queen's."""
        async with self._turn:
            epoch = self._epochs.get(name)
            rows = [] if epoch is None else await self._store.raise_epoch({name: epoch}, self._incarnation)
            if not rows:
                self.forget(name)
                return None
            self._epochs[name] = rows[0].epoch
            return rows[0]

    def forget(self, name: str) -> None:
        """Stops renewing a lease; the next round may take it anew."""
        self._epochs.pop(name, None)
        self._valid_until.pop(name, None)
        self._untold = [row for row in self._untold if row.name != name]

    async def hand_back(self, name: str) -> None:
        """Gives one lease back, so that another queen can take it at once."""
        async with self._turn:
            epoch = self._epochs.get(name)
            if epoch is not None:
                await self._store.release({name: epoch}, self._incarnation)
                self.forget(name)

    async def leave(self) -> None:
        """Takes nothing from now on, and leaves its share to the others."""
        self._is_leaving = True
        if self._is_spread:
            async with self._turn:
                await self._store.leave(self._owner, self._incarnation)

    async def release(self) -> bool:
        """Gives everything back at once, so that others need not wait for it to lapse; says whether it held any."""
        self._is_leaving = True
        async with self._turn:
            epochs, self._epochs = self._epochs, {}
            self._valid_until.clear()
            self._untold.clear()
            if epochs:
                await self._store.release(epochs, self._incarnation)
            return bool(epochs)

    async def _pause(self) -> None:
        sleep = asyncio.ensure_future(self._clock.sleep(self._lease_s / 3))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleep, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            woken.cancel()
        self._wake.clear()

    def _is_half_over(self, row: LeaseRow) -> bool:
        return self._clock.boottime() > self._valid_until.get(row.name, 0.0) - self._lease_s / 2

    async def _take(self, names: list[str], limit: int) -> None:
        since = self._clock.boottime()
        rows = await self._store.take(names, self._owner, self._incarnation, self._lease_s, limit=limit)
        for row in rows:
            self._epochs[row.name] = row.epoch
            self._valid_until[row.name] = since + self._lease_s
        self._untold += rows
        if rows:
            log.info("leases_taken", leases=[row.name for row in rows])

    async def _renew(self) -> None:
        if not self._epochs:
            return
        since = self._clock.boottime()
        ours = await self._store.renew(dict(self._epochs), self._incarnation, self._lease_s)
        for name in list(self._epochs):
            if name in ours:
                self._valid_until[name] = since + self._lease_s
            else:
                log.warning("lease_lost", lease=name)
                self.forget(name)
                self._listener.lost(name)
