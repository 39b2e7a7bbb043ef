"""Group commit of submissions: one INSERT for all that arrived while the former one ran."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from formicary.store.errors import DataRefusedError
from formicary.store.jobs import Inserted, JobStore
from formicary.store.rows import NewJob

#: The most jobs that one INSERT takes, so that a big batch does not delay what came with it for long.
_MAX_JOBS = 5_000


class _Entry(NamedTuple):
    jobs: Sequence[NewJob]
    inserted: asyncio.Future[list[Inserted]]


class Intake:
    """Inserts jobs for many concurrent callers. A caller that is cancelled may leave its jobs inserted."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._waiting: list[_Entry] = []
        self._flusher: asyncio.Task[None] | None = None

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Inserts ``jobs``, all in one commit, perhaps together with those of other callers.

        Raises:
            UnavailableError: the database is away; nothing is known to be inserted.
        """
        entry = _Entry(jobs, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush(), name="intake")
        return await entry.inserted

    async def close(self) -> None:
        """Waits until everything that was given to ``insert`` is inserted or refused."""
        if self._flusher is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.wait({self._flusher})

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._flush_once(self._take())
        finally:
            self._flusher = None

    def _take(self) -> list[_Entry]:
        count = job_count = 0
        while count < len(self._waiting) and (count == 0 or job_count < _MAX_JOBS):
            job_count += len(self._waiting[count].jobs)
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _flush_once(self, entries: list[_Entry]) -> None:
        jobs = [job for entry in entries for job in entry.jobs]
        try:
            inserted = await self._store.insert(jobs)
        except DataRefusedError as error:
            await self._split(entries, error)
            return
        except BaseException as error:
            for entry in entries:
                _fail(entry, error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for entry in entries:
            end = start + len(entry.jobs)
            if not entry.inserted.done():
                entry.inserted.set_result(inserted[start:end])
            start = end

    async def _split(self, entries: list[_Entry], error: DataRefusedError) -> None:
        if len(entries) == 1:
            _fail(entries[0], error)
            return
        for entry in entries:
            await self._flush_once([entry])


def _fail(entry: _Entry, error: BaseException) -> None:
    if not entry.inserted.done():
        entry.inserted.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
