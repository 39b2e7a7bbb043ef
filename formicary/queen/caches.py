"""Keeps the caches in the artifact store within their limits.

Rules:

- What has expired, and archives beside which a newer one of the same key stands, are deleted first.
- Where the caches of one job type, or all together, still take more than their limit, the least recently used go, small
  ones until up to a tenth of the limit is free: so the next look at who used what comes when that is taken, not with
  the next cache. A cache is used when it is stored and when an attempt restores it, which the attempts' records say.
- Nothing that was just stored is deleted as superseded: an attempt may be fetching it. Deleting under a reader costs it
  its hit, nothing else.
- The leading queen does it, so that it is done once. Nothing breaks where two do.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from formicary.artifacts.base import ArtifactError, ArtifactStore
from formicary.artifacts.caches import ROOT, CacheEntry, CacheScope, milliseconds, parse_name
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.metrics import CACHE_BYTES, CACHES_EVICTED
from formicary.queen.leadership import Leadership
from formicary.service import Service
from formicary.store.caches import CacheName, CacheUses

log = structlog.get_logger(__name__)

#: Between two looks, in seconds.
POLL_S: Final = 60.0
#: Of a limit that was exceeded, how much is left in use at least, where it is much in small pieces.
KEPT: Final = 0.9
#: How long a superseded archive is left to those who may be fetching it, in seconds.
GRACE_S: Final = 600.0

LastUse = Callable[[CacheEntry], int]
"""When an archive was used last, in milliseconds since 1970."""


class CacheLimits(NamedTuple):
    """What caches may take, packed: those of one job type, and all together."""

    job_type_bytes: int
    total_bytes: int


class CacheEviction(Service):
    """Looks at all caches once a minute while this queen leads."""

    def __init__(
        self, store: ArtifactStore, uses: CacheUses, leadership: Leadership, clock: Clock, limits: CacheLimits
    ) -> None:
        super().__init__()
        self._store = store
        self._uses = uses
        self._leadership = leadership
        self._clock = clock
        self._limits = limits

    async def run(self) -> None:
        """Evicts until cancelled."""
        self.started.set()
        while True:
            try:
                if self._leadership.leader_epoch() is not None:
                    await self.run_once()
            except (FormicaryError, ArtifactError, OSError) as error:
                log.warning("caches_not_evicted", reason=str(error))
            await self._clock.sleep(POLL_S)

    async def run_once(self) -> list[CacheEntry]:
        """Deletes what is too old or too much, and returns it."""
        now = self._clock.now()
        names = [name async for name in self._store.list(ROOT)]
        entries = [entry for name in names if (entry := parse_name(name)) is not None]
        gone = outdated(entries, now)
        kept = sorted(set(entries).difference(gone))
        if is_over(kept, self._limits):
            gone += too_much(kept, self._limits, await self._last_use(now))
        for entry in gone:
            await self._store.delete(entry.name)
        left = sum(entry.size_bytes for entry in entries) - sum(entry.size_bytes for entry in gone)
        CACHE_BYTES.set(left)
        CACHES_EVICTED.inc(len(gone))
        if gone:
            log.info("caches_evicted", count=len(gone), size_bytes=sum(entry.size_bytes for entry in gone), left=left)
        return gone

    async def _last_use(self, now: datetime) -> LastUse:
        uses = await self._uses.last_uses(now)

        def last_use(entry: CacheEntry) -> int:
            used_at = uses.get(CacheName(*entry.scope, entry.key))
            return entry.created_ms if used_at is None else max(entry.created_ms, milliseconds(used_at))

        return last_use


def outdated(entries: Iterable[CacheEntry], now: datetime) -> list[CacheEntry]:
    """Returns what expired, and what a newer archive of the same key has superseded for a while."""
    newest: dict[tuple[CacheScope, str], CacheEntry] = {}
    settled_ms = milliseconds(now) - int(GRACE_S * 1000)
    gone: list[CacheEntry] = []
    for entry in sorted(entries, key=lambda entry: entry.created_ms, reverse=True):
        if not entry.is_live(now):
            gone.append(entry)
            continue
        newer = newest.setdefault((entry.scope, entry.key), entry)
        if newer is not entry and newer.created_ms < settled_ms:
            gone.append(entry)
    return gone


def is_over(entries: Collection[CacheEntry], limits: CacheLimits) -> bool:
    """Says whether a limit is exceeded."""
    largest = max((sum(each.size_bytes for each in group) for group in _by_scope(entries)), default=0)
    return largest > limits.job_type_bytes or sum(entry.size_bytes for entry in entries) > limits.total_bytes


def too_much(entries: Collection[CacheEntry], limits: CacheLimits, last_use: LastUse) -> list[CacheEntry]:
    """Returns the least recently used, so that the rest is within the limits, with some room."""
    gone: list[CacheEntry] = []
    for group in _by_scope(entries):
        gone += _least_used(group, limits.job_type_bytes, last_use)
    return gone + _least_used(set(entries).difference(gone), limits.total_bytes, last_use)


def _least_used(entries: Collection[CacheEntry], limit_bytes: int, last_use: LastUse) -> list[CacheEntry]:
    total = sum(entry.size_bytes for entry in entries)
    gone: list[CacheEntry] = []
    if total <= limit_bytes:
        return gone
    for entry in sorted(entries, key=lambda entry: (last_use(entry), entry)):
        # What is large stays where there is room for it: the next one would take more than a tenth anyway.
        if total <= limit_bytes and total - entry.size_bytes < limit_bytes * KEPT:
            break
        total -= entry.size_bytes
        gone.append(entry)
    return gone


def _by_scope(entries: Iterable[CacheEntry]) -> Collection[list[CacheEntry]]:
    groups: defaultdict[CacheScope, list[CacheEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.scope].append(entry)
    return groups.values()
