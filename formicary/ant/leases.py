"""Leases of an ant, one per shard: until when it may run that shard's attempts.

Rules (``protocol.md`` 5):

- A lease runs from the *sending* of the newest heartbeat that the shard's owner answered, never from the answer.
- It never lasts longer than the owner says, who counts the ant lost by that; the ant's own setting may only shorten it.
- An answer counts only if its epoch is not older than the newest epoch seen for the shard.
- Where the broker lives in this very process, there is nothing to be cut off from: every lease holds, for ever.
- When any lease ends, so does the incarnation, and with it every other lease.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

#: Heartbeats leave at least this often, in seconds, however long the lease is: people look at them.
MAX_HEARTBEAT_S: Final = 5.0
#: Heartbeats whose time of sending is remembered; older ones are answered by nobody any more.
_SENT_LIMIT: Final = 256


class Leases:
    """The leases of one ant through its incarnations. Times are seconds of ``Clock.boottime``."""

    def __init__(self, lease_s: float, can_lapse: bool) -> None:
        self._lease_s = lease_s
        #: The shortest that an owner told in this incarnation.
        self._told_s = lease_s
        self._can_lapse = can_lapse
        self._expires: dict[int, float] = {}
        self._sent: OrderedDict[int, float] = OrderedDict()
        #: The newest epoch seen per shard; epochs outlive incarnations.
        self.epochs: dict[int, int] = {}

    def begin(self) -> None:
        """Starts a new incarnation, which holds no lease."""
        self._expires.clear()
        self._sent.clear()
        self._told_s = self._lease_s

    def note_epoch(self, shard: int, epoch: int) -> bool:
        """Notes an epoch that an event carried; tells whether it is newer than all before."""
        if epoch <= self.epochs.get(shard, -1):
            return False
        self.epochs[shard] = epoch
        return True

    def note_sent(self, sequence: int, at: float) -> None:
        """Remembers when a heartbeat's sending began."""
        self._sent[sequence] = at
        if len(self._sent) > _SENT_LIMIT:
            self._sent.popitem(last=False)

    def note_answer(
        self, epochs: Mapping[int, int], sequence: int, now: float, told_s: float | None = None
    ) -> dict[int, float]:
        """Takes an owner's answer and returns the shards whose lease it prolonged, with the new end.

        The caller has made sure that no lease has lapsed: what has ended is never prolonged.

        Args:
            told_s: how long the owner says that a lease lasts; None: it does not say.
        """
        lease_s = self._lease_s if told_s is None else min(self._lease_s, told_s)
        self._told_s = min(self._told_s, lease_s)
        sent_at = self._sent.get(sequence)
        if sent_at is None or not self._can_lapse:
            return {}
        expires_at = sent_at + lease_s
        if expires_at <= now:
            return {}
        prolonged = {
            shard: expires_at
            for shard, epoch in epochs.items()
            if epoch >= self.epochs.get(shard, -1) and expires_at > self._expires.get(shard, -math.inf)
        }
        self._expires.update(prolonged)
        return prolonged

    def holds(self, shard: int, now: float) -> bool:
        """Tells whether attempts of this shard may be accepted and run."""
        return not self._can_lapse or now < self._expires.get(shard, -math.inf)

    def has_lapsed(self, now: float) -> bool:
        """Tells whether any lease of this incarnation has ended."""
        return any(now >= expires_at for expires_at in self._expires.values())

    @property
    def heartbeat_s(self) -> float:
        """Returns the pause between heartbeats that keeps the shortest lease."""
        return min(self._told_s / 3, MAX_HEARTBEAT_S)

    @property
    def next_end(self) -> float:
        """Returns when the first lease ends; infinity where there is none."""
        return min(self._expires.values(), default=math.inf)
