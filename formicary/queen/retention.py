"""Lets artifacts go when their time has come, and deletes what nothing refers to.

Rules:

- References expire by ``expires_at``, by the database's clock, and only once their job has ended: what a running job
  may need stays. Their contents are looked at right after.
- Now and then all of the store is looked at, for what no reference ever named: see ``artifacts/sweeping.py``, which
  also says why none of this can delete what is in use.
- The leading queen does it, so that it is done once. Nothing breaks where two do.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from formicary.artifacts.base import ArtifactError
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.sweeping import Sweeper, Swept
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.metrics import ARTIFACTS_EXPIRED, CONTENTS_DELETED
from formicary.queen.leadership import Leadership
from formicary.service import Service
from formicary.store.references import References

log = structlog.get_logger(__name__)

#: Between two looks at what expired, in seconds.
POLL_S: Final = 30.0
#: References that expire in one statement.
BATCH: Final = 1000
#: From the start of a leadership to its first look at the whole store, in seconds, unless the period is shorter.
FIRST_SWEEP_S: Final = 300.0
#: What a dead writer left is deleted after so long, in seconds: longer than any upload takes.
LEFTOVERS_S: Final = 7 * 86400.0


class Expired(NamedTuple):
    """What one look did: references that expired, and contents deleted with them."""

    artifact_count: int
    content_count: int


class Retention(Service):
    """Expires and sweeps while this queen leads."""

    def __init__(self, blobs: Blobs, references: References, clock: Clock, every_s: float) -> None:
        super().__init__()
        self._blobs = blobs
        self._references = references
        self._sweeper = Sweeper(blobs, references)
        self._clock = clock
        self._every_s = every_s
        self._epoch: int | None = None
        self._sweep_at = 0.0
        #: Set by who builds the queen; without it nothing is done.
        self.leadership: Leadership | None = None

    async def open(self) -> None:
        """Notes in the store that this colony uses it; to be called before the first task is dispatched."""
        await self._sweeper.register(await self._references.colony_id(), self._clock.now())

    async def run(self) -> None:
        """Looks every half minute until cancelled."""
        self.started.set()
        while True:
            try:
                await self.run_once()
            except (FormicaryError, ArtifactError, OSError) as error:
                log.warning("retention_waits", reason=str(error))
            await self._clock.sleep(min(POLL_S, self._every_s))

    async def run_once(self) -> None:
        """Does what is due, if this queen leads."""
        epoch = self.leadership.leader_epoch() if self.leadership is not None else None
        if epoch is None:
            self._epoch = None
            return
        now = self._clock.boottime()
        if epoch != self._epoch:
            self._epoch, self._sweep_at = epoch, now + min(FIRST_SWEEP_S, self._every_s)
        await self.expire()
        if now >= self._sweep_at:
            try:
                await self.sweep()
            finally:
                self._sweep_at = self._clock.boottime() + self._every_s

    async def expire(self) -> Expired:
        """Lets go of everything whose time has come, and deletes the contents that this leaves without a reference."""
        artifact_count = content_count = 0
        while batch := await self._references.expire(BATCH):
            ARTIFACTS_EXPIRED.inc(len(batch))
            artifact_count += len(batch)
            content_count += await self.collect(batch)
        return Expired(artifact_count, content_count)

    async def sweep(self) -> Swept:
        """Looks at the whole store; says before that this colony lives."""
        await self.open()
        while len(await self._references.unpin(BATCH)) >= BATCH:
            pass
        swept = await self._sweeper.sweep()
        CONTENTS_DELETED.inc(swept.deleted_count)
        await self._blobs.store.sweep(LEFTOVERS_S)
        log.info("artifacts_swept", seen=swept.seen_count, deleted=swept.deleted_count)
        return swept

    async def collect(self, contents: Sequence[str]) -> int:
        """Deletes those of the contents that nobody needs any more; returns the number of copies."""
        swept = await self._sweeper.collect(contents)
        CONTENTS_DELETED.inc(swept.deleted_count)
        if contents:
            log.info("references_removed", count=len(contents), deleted=swept.deleted_count)
        return swept.deleted_count

    async def is_alone(self) -> bool:
        """Says whether the store belongs to this colony only."""
        return await self._sweeper.is_alone()
