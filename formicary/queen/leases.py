"""Holds leases in the database: the shards of this queen, the leadership of the scheduler.

A lease is *valid* for this process until its life, counted from before the statement that took or renewed it, is over
by this machine's own clock; the database judges by its own, and every statement that matters checks the epoch.
"""

from typing import Protocol

import structlog

from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.ids import QueenId
from formicary.store.leases import LeaseStore
from formicary.store.rows import LeaseRow

log = structlog.get_logger(__name__)


class LeaseListener(Protocol):
    """Is told what was won and lost."""

    async def taken(self, row: LeaseRow) -> None:
        """The lease is this queen's, under the row's epoch."""
        ...

    def lost(self, name: str) -> None:
        """Another queen took the lease."""
        ...


class LeaseKeeper:
    """Takes lapsed leases among ``names`` and renews what it holds; ``run_once`` is one round."""

    def __init__(
        self,
        store: LeaseStore,
        names: list[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        clock: Clock,
        listener: LeaseListener,
    ) -> None:
        self._store = store
        self._names = names
        self._owner = owner
        self._incarnation = incarnation
        self._lease_s = lease_s
        self._clock = clock
        self._listener = listener
        self._epochs: dict[str, int] = {}
        self._valid_until: dict[str, float] = {}
        #: Taken, and the listener not told yet: telling it can fail, and is then repeated.
        self._untold: list[LeaseRow] = []

    def is_valid(self, name: str) -> bool:
        """Says whether the lease is held and its life not over."""
        return self._clock.boottime() < self._valid_until.get(name, 0.0)

    def epoch(self, name: str) -> int | None:
        """Returns the epoch under which the lease is held."""
        return self._epochs.get(name)

    async def run(self) -> None:
        """Repeats ``run_once`` three times in a lease's life; a database that is away is waited out."""
        while True:
            await self._clock.sleep(self._lease_s / 3)
            try:
                await self.run_once()
            except UnavailableError as error:
                log.warning("leases_not_renewed", reason=str(error))

    async def run_once(self) -> None:
        """Renews what is held, gives up what was taken by others, takes what is free."""
        await self._renew()
        wanted = [name for name in self._names if name not in self._epochs]
        if wanted:
            await self._take(wanted)
        while self._untold:
            await self._listener.taken(self._untold[0])
            self._untold.pop(0)

    async def _take(self, names: list[str]) -> None:
        since = self._clock.boottime()
        rows = await self._store.take(names, self._owner, self._incarnation, self._lease_s)
        for row in rows:
            self._epochs[row.name] = row.epoch
            self._valid_until[row.name] = since + self._lease_s
        self._untold += rows
        if rows:
            log.info("leases_taken", leases=[row.name for row in rows])

    async def raise_epoch(self, name: str) -> LeaseRow | None:
        """Opens the next epoch of a lease, for a reload; None where it is no longer this queen's."""
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

    async def release(self) -> None:
        """Gives everything back at once, so that others need not wait for it to lapse."""
        epochs, self._epochs = self._epochs, {}
        self._valid_until.clear()
        if epochs:
            await self._store.release(epochs, self._incarnation)

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
