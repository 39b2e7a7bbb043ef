"""Deletes jobs that ended long ago, and of every deleted job all else that there is.

Rules:

- Only jobs that have ended go, and none that a restart is reading. The row goes first; nobody finds the job any more.
- Its output, artifacts, tasks and history follow from a note (see ``store/ended_jobs.py``), so that whatever stops in
  between, the next leader goes on. That is so where a person deletes a row of ``jobs``, too.
- Objects go before the rows that name them. A content of an artifact goes if nobody else needs it.
- Where others use the store its objects stay: the other colony may have begun as a copy of this database, and have the
  same jobs.
- Keys of submissions go after their seven days, whatever became of their jobs.
- The leading queen does it, so that it is done once. Nothing breaks where two do.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import structlog

from formicary.artifacts.base import ArtifactError, ArtifactStore
from formicary.artifacts.parallel import each
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.ids import least_id
from formicary.metrics import JOBS_DELETED
from formicary.queen.leadership import Leadership
from formicary.service import Service
from formicary.store.ended_jobs import EndedJobs

log = structlog.get_logger(__name__)

#: Between two looks, in seconds.
POLL_S: Final = 30.0
#: Jobs that are deleted in one statement.
BATCH: Final = 500
#: How long a submission's key answers with its job, in seconds.
KEYS_KEPT_S: Final = 7 * 86_400.0


class Contents(Protocol):
    """Who deletes contents of artifacts."""

    async def collect(self, contents: Sequence[str]) -> int:
        """Deletes those that nobody needs any more."""
        ...

    async def is_alone(self) -> bool:
        """Says whether the store belongs to this colony only."""
        ...


class JobRetention(Service):
    """Looks twice a minute while this queen leads.

    Args:
        keep_s: how long ended jobs are kept; None: for ever.
        only_published: whether changes of jobs are published on the bus, and have to be before they are deleted.
    """

    def __init__(
        self,
        jobs: EndedJobs,
        store: ArtifactStore,
        contents: Contents,
        leadership: Leadership,
        clock: Clock,
        *,
        keep_s: float | None,
        only_published: bool,
    ) -> None:
        super().__init__()
        self._jobs = jobs
        self._store = store
        self._contents = contents
        self._leadership = leadership
        self._clock = clock
        self._keep_s = keep_s
        self._only_published = only_published

    async def run(self) -> None:
        """Deletes until cancelled."""
        self.started.set()
        while True:
            try:
                await self.run_once()
            except (FormicaryError, ArtifactError, OSError) as error:
                log.warning("job_retention_waits", reason=str(error))
            await self._clock.sleep(POLL_S if self._keep_s is None else min(POLL_S, self._keep_s))

    async def run_once(self) -> int:
        """Deletes what is due, if this queen leads; returns the number of jobs."""
        count = 0
        while self._leadership.leader_epoch() is not None:
            deleted = await self._delete()
            await self._clear()
            count += deleted
            if deleted < BATCH:
                while await self._jobs.forget_keys(KEYS_KEPT_S):
                    pass
                break
        if count:
            log.info("jobs_deleted", count=count)
        return count

    async def _delete(self) -> int:
        if self._keep_s is None:
            return 0
        first_kept = least_id(self._clock.now() - timedelta(seconds=self._keep_s))
        deleted = await self._jobs.delete(self._keep_s, first_kept, BATCH, only_published=self._only_published)
        JOBS_DELETED.inc(deleted)
        return deleted

    async def _clear(self) -> None:
        """Deletes what is left of deleted jobs; what somebody has locked is left for the next look."""
        while job_ids := await self._jobs.deleted(BATCH):
            keys = await self._jobs.log_keys(job_ids)
            if keys and await self._contents.is_alone():
                await each(keys, self._store.delete)
            while contents := await self._jobs.let_go(job_ids):
                await self._contents.collect(contents)
            await self._jobs.clear(job_ids)
            if not await self._jobs.forget(job_ids):
                break
