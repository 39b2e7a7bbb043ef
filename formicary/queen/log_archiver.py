"""Moves the output of ended jobs from the database to the artifact store.

Rules:

- A part is uploaded first, then its row is committed, then its lines are deleted. A kill in between leaves an object
  that no row names, or lines that nobody reads any more: the next leader deletes the former, the next look the latter.
- Its row is committed only by the queen that leads, under the epoch in which it wrote the object, and once. An object
  has a name of its own each time, so that no late upload can replace one that counts.
- What comes later (a slow broker, a restart of the job) becomes another part. Lines that come twice are refused by the
  database, which knows what was moved.
- A job's output goes with the job: lines that come when its row is gone are deleted here, the others with it.
"""

import asyncio
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from formicary.artifacts.base import ArtifactError
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.ids import JobId, new_job_id
from formicary.metrics import LOG_LINES_ARCHIVED
from formicary.queen.leadership import Leadership
from formicary.queen.log_archive import PartWriter
from formicary.queen.log_reader import LogSources
from formicary.service import Service
from formicary.store.log_parts import AttemptLines, LogPart

log = structlog.get_logger(__name__)

#: What the keys of all objects begin with.
PREFIX: Final = "logs/"
#: Between two looks for jobs that ended, in seconds.
POLL_S: Final = 5.0
#: From the start of a leadership to its first look for objects that dead queens left, in seconds.
FIRST_ORPHANS_S: Final = 300.0
#: Between two such looks, in seconds.
ORPHANS_S: Final = 86_400.0
#: Jobs looked at in one statement, and keys.
BATCH: Final = 500
#: Jobs whose output moves at the same time.
_AT_ONCE: Final = 4
_PAGE_LINES: Final = 1_000
_CLEARED_LINES: Final = 10_000
_ALL: Final = 2**63 - 1
#: A part ends with the page by which its object reaches this size.
PART_BYTES: Final = 64 * 1024 * 1024
_KEY: Final = re.compile(rf"{PREFIX}(?P<job_id>[0-9a-f-]{{36}})/\d+-(?P<epoch>\d+)-[0-9a-f]+\.jsonl\.zst")


class _Draft(NamedTuple):
    """A part that is written and not committed; ``is_last``: no line is left behind it."""

    part: LogPart
    attempts: list[AttemptLines]
    is_last: bool


class LogArchiver(Service):
    """Moves output while this queen leads.

    Args:
        after_s: how long a job must have ended: its last lines are still looked at, and come in.
        part_bytes: the size of an object at which another one begins.
        is_alone: says whether nobody else uses the store.
    """

    def __init__(
        self,
        sources: LogSources,
        leadership: Leadership,
        clock: Clock,
        after_s: float,
        part_bytes: int = PART_BYTES,
        is_alone: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__()
        self._sources = sources
        self._leadership = leadership
        self._clock = clock
        self._after_s = after_s
        self._part_bytes = part_bytes
        self._is_alone = is_alone
        self._epoch: int | None = None
        self._orphans_at = 0.0

    async def run(self) -> None:
        """Looks every few seconds until cancelled."""
        self.started.set()
        while True:
            try:
                await self.run_once()
            except (FormicaryError, ArtifactError, OSError) as error:
                log.warning("log_archiver_waits", reason=str(error))
            await self._clock.sleep(min(POLL_S, max(self._after_s, 0.1)))

    async def run_once(self) -> int:
        """Moves what is due, if this queen leads; returns the number of lines."""
        epoch = self._leadership.leader_epoch()
        if epoch is None:
            self._epoch = None
            return 0
        count = await self._move_due(epoch)
        await self._look_for_leftovers(epoch)
        return count

    async def archive(self, job_id: JobId, epoch: int) -> int:
        """Moves all lines of a job; returns their number."""
        parts = await self._sources.parts.parts(job_id)
        number, after, count = len(parts), parts[-1].last_arrival if parts else 0, 0
        while True:
            await self._clear(job_id, after)
            number += 1
            draft = await self._move(job_id, number, after, epoch)
            if draft is None:
                return count
            count, after = count + draft.part.line_count, draft.part.last_arrival
            if draft.is_last:
                await self._clear(job_id, after)
                return count

    async def delete_orphans(self, epoch: int) -> int:
        """Deletes objects of earlier epochs that no part names; returns their number.

        Nobody can name them any more. Where others use the store nothing is deleted: an object may be a part of theirs,
        also of a job that is here, if their database is a copy of this one.
        """
        count = 0
        batch: list[tuple[JobId, str]] = []
        async for key in self._sources.store.list(PREFIX):
            match = _KEY.fullmatch(key)
            if match is not None and int(match["epoch"]) < epoch:
                batch.append((JobId(match["job_id"]), key))
            if len(batch) == BATCH:
                count += await self._delete_unknown(batch)
                batch.clear()
        return count + await self._delete_unknown(batch)

    async def _delete_unknown(self, keys: Sequence[tuple[JobId, str]]) -> int:
        # Whoever put one of them, put a name of their own before.
        if not keys or self._is_alone is None or not await self._is_alone():
            return 0
        return await self._delete(await self._sources.parts.unknown(keys))

    async def _move_due(self, epoch: int) -> int:
        after: JobId | None = None
        count = 0
        newest = new_job_id()  # one pass looks at what is there at its begin: more may come as fast as it moves
        while held := await self._sources.parts.held(after, BATCH, self._after_s):
            after = held[-1].job_id
            for job in held:
                if job.is_gone:
                    await self._clear(job.job_id, _ALL)
            due = [job.job_id for job in held if job.is_due]
            for start in range(0, len(due), _AT_ONCE):
                if self._leadership.leader_epoch() != epoch:
                    return count
                moving = (self._try_archive(job_id, epoch) for job_id in due[start : start + _AT_ONCE])
                count += sum(await asyncio.gather(*moving))
            if after > newest:
                break
        return count

    async def _try_archive(self, job_id: JobId, epoch: int) -> int:
        """Moves the lines of a job; where that fails the next pass tries again, and those of others go on."""
        try:
            return await self.archive(job_id, epoch)
        except (FormicaryError, ArtifactError, OSError) as error:
            log.warning("log_not_archived", job_id=job_id, reason=str(error))
            return 0

    async def _look_for_leftovers(self, epoch: int) -> None:
        now = self._clock.boottime()
        if epoch != self._epoch:
            self._epoch, self._orphans_at = epoch, now + FIRST_ORPHANS_S
        if now >= self._orphans_at:
            self._orphans_at = now + ORPHANS_S
            if count := await self.delete_orphans(epoch):
                log.info("log_orphans_deleted", objects=count)

    async def _move(self, job_id: JobId, number: int, after: int, epoch: int) -> _Draft | None:
        """Uploads and commits the next part; None where there is none, or another queen was faster."""
        key = f"{PREFIX}{job_id}/{number}-{epoch}-{secrets.token_hex(4)}.jsonl.zst"
        with tempfile.NamedTemporaryFile(prefix="formicary-log-") as file:
            writer = PartWriter(file)
            is_last = await self._write(writer, job_id, after)
            if not writer.line_count:
                return None
            index_start = await asyncio.to_thread(writer.finish)
            await self._sources.store.put(key, Path(file.name))
        part = LogPart(
            part=number,
            key=key,
            first_arrival=writer.first_arrival,
            last_arrival=writer.last_arrival,
            line_count=writer.line_count,
            index_start=index_start,
            size_bytes=writer.position,
        )
        attempts = writer.attempts()
        if not await self._sources.parts.commit(job_id, part, attempts, epoch):
            await self._delete([key])
            return None
        LOG_LINES_ARCHIVED.inc(part.line_count)
        return _Draft(part, attempts, is_last)

    async def _write(self, writer: PartWriter, job_id: JobId, after: int) -> bool:
        """Writes lines until there are no more, or it is enough for one part; tells which."""
        while writer.position < self._part_bytes:
            rows = await self._sources.lines.read(job_id, None, None, after, _PAGE_LINES)
            if rows:
                after = rows[-1].arrival
                await asyncio.to_thread(writer.add, rows)
            if len(rows) < _PAGE_LINES:
                return True
        return False

    async def _clear(self, job_id: JobId, up_to: int) -> None:
        """Deletes lines that nobody reads any more, some at a time, so that no lock is held for long."""
        while up_to and await self._sources.parts.clear(job_id, up_to, _CLEARED_LINES) == _CLEARED_LINES:
            pass

    async def _delete(self, keys: Iterable[str]) -> int:
        count = 0
        for key in keys:
            await self._sources.store.delete(key)
            count += 1
        return count
