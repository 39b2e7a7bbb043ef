"""The tables ``leases`` and ``queens`` in memory, with the rules of ``formicary/store/leases.py``."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from formicary.ids import QueenId
from formicary.store.rows import LeaseRow
from tests.simulation.tables import NEVER, Lease


class LeaseTable:
    """Who owns what until when, by the clock ``now``."""

    def __init__(self, shard_count: int, now: Callable[[], datetime]) -> None:
        self.shard_count = shard_count
        self.now = now
        names = [("leader", None), *((f"shard-{number}", number) for number in range(shard_count))]
        self.leases = {name: Lease(name, shard) for name, shard in names}
        self.queens: dict[QueenId, tuple[str, datetime]] = {}

    def all_leases(self) -> list[LeaseRow]:
        """Mirrors ``LeaseStore.all``."""
        return [self._row(lease) for lease in self.leases.values()]

    def take(
        self,
        names: Collection[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        only_lapsed: bool,
        limit: int | None,
    ) -> list[LeaseRow]:
        """Mirrors ``LeaseStore.take``."""
        now = self.now()
        free = [
            lease
            for lease in self.leases.values()
            if lease.name in names and (not only_lapsed or self._is_free(lease, owner, incarnation, now))
        ]
        for lease in free[:limit]:
            lease.owner, lease.owner_incarnation = owner, incarnation
            lease.epoch += 1
            lease.expires_at = now + timedelta(seconds=lease_s)
        return [self._row(lease) for lease in free[:limit]]

    def _is_free(self, lease: Lease, owner: QueenId, incarnation: str, now: datetime) -> bool:
        is_former_life = lease.owner == owner and lease.owner_incarnation != incarnation
        return lease.owner is None or lease.expires_at <= now or is_former_life

    def renew(self, epochs: Mapping[str, int], incarnation: str, lease_s: float) -> set[str]:
        """Mirrors ``LeaseStore.renew``."""
        ours = self._ours(epochs, incarnation)
        for lease in ours:
            lease.expires_at = self.now() + timedelta(seconds=lease_s)
        return {lease.name for lease in ours}

    def release(self, epochs: Mapping[str, int], incarnation: str) -> set[str]:
        """Mirrors ``LeaseStore.release``."""
        ours = self._ours(epochs, incarnation)
        for lease in ours:
            lease.owner = lease.owner_incarnation = None
            lease.expires_at = NEVER
        return {lease.name for lease in ours}

    def raise_epoch(self, epochs: Mapping[str, int], incarnation: str) -> list[LeaseRow]:
        """Mirrors ``LeaseStore.raise_epoch``."""
        ours = self._ours(epochs, incarnation)
        for lease in ours:
            lease.epoch += 1
        return [self._row(lease) for lease in ours]

    def _ours(self, epochs: Mapping[str, int], incarnation: str) -> list[Lease]:
        return [
            lease
            for lease in self.leases.values()
            if epochs.get(lease.name) == lease.epoch and lease.owner_incarnation == incarnation
        ]

    def _row(self, lease: Lease) -> LeaseRow:
        return LeaseRow(
            lease.name,
            lease.shard,
            lease.owner,
            lease.owner_incarnation,
            lease.epoch,
            lease.expires_at > self.now(),
            lease.results_position,
            lease.launch_position,
        )

    def present(self, queen: QueenId, incarnation: str, lease_s: float) -> list[QueenId]:
        """Mirrors ``LeaseStore.present``."""
        now = self.now()
        self.queens[queen] = (incarnation, now + timedelta(seconds=lease_s))
        return sorted(name for name, (_, expires_at) in self.queens.items() if expires_at > now or name == queen)

    def leave(self, queen: QueenId, incarnation: str) -> None:
        """Mirrors ``LeaseStore.leave``, but for the forgetting of queens long silent."""
        if queen in self.queens and self.queens[queen][0] == incarnation:
            del self.queens[queen]
