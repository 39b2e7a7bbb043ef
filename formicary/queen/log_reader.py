"""Reading output wherever it is: moved to the artifact store, or still in the database.

Lines move while they are read. A reader keeps one number, the arrival of the last line that it has seen, and asks the
database for lines first and for parts afterwards: lines are deleted only once a part has them, so where no part goes
beyond that number, the lines were all there.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Final, NamedTuple

from formicary.artifacts.base import ArtifactStore
from formicary.ids import JobId
from formicary.queen.log_archive import Frame, read_frame, read_index
from formicary.store.log_parts import LogPart, LogPartStore
from formicary.store.logs import LogRow, LogStore

#: Lines read from the database at a time.
PAGE_LINES: Final = 1_000
#: Frames that lie side by side are asked for together, up to so many bytes.
_RUN_BYTES: Final = 4 * 1024 * 1024


class LogSources(NamedTuple):
    """Where lines can be."""

    lines: LogStore
    parts: LogPartStore
    store: ArtifactStore


class Wanted(NamedTuple):
    """Which lines: of one task or all (None), of one attempt or all."""

    job_id: JobId
    task_no: int | None = None
    attempt: int | None = None

    def has(self, row: LogRow) -> bool:
        """Tells whether the line is one of them."""
        return self.task_no in (None, row.task_no) and self.attempt in (None, row.attempt)


class LogReader:
    """One reader of one job's lines. ``after`` is the arrival of the last line that it has seen."""

    def __init__(self, sources: LogSources, wanted: Wanted, after: int = 0) -> None:
        self._sources = sources
        self._wanted = wanted
        self.after = after

    async def pages(self) -> AsyncIterator[list[LogRow]]:
        """Yields the lines that there are behind ``after``, in order of arrival, each once; goes on where it stopped.

        Raises:
            ArtifactError: what was moved cannot be read.
            UnavailableError: the database is away.
        """
        while True:
            rows = await self._sources.lines.read(*self._wanted, self.after, PAGE_LINES)
            parts = await self._sources.parts.parts(self._wanted.job_id, self.after)
            if not parts:
                if rows:
                    self.after = rows[-1].arrival
                    yield rows
                if len(rows) < PAGE_LINES:
                    return
                continue
            for part in parts:
                async with contextlib.aclosing(self._moved(part)) as pages:
                    async for page in pages:
                        yield page

    async def seek_last(self, count: int) -> None:
        """Goes to where ``count`` lines are left to be read, or to the beginning where there are fewer."""
        while True:
            parts = await self._sources.parts.parts(self._wanted.job_id)
            beyond = parts[-1].last_arrival if parts else 0
            arrivals = await self._sources.lines.last_arrivals(*self._wanted, beyond, max(count, 1))
            if not await self._sources.parts.parts(self._wanted.job_id, beyond):
                break
        if not count:
            self.after = arrivals[-1] if arrivals else beyond
        elif len(arrivals) == count:
            self.after = arrivals[0] - 1
        else:
            self.after = await self._last_moved(parts, count - len(arrivals))

    async def _last_moved(self, parts: Sequence[LogPart], count: int) -> int:
        for part in reversed(parts):
            for frame in reversed(await self._frames(part)):
                found = frame.count(self._wanted.task_no, self._wanted.attempt)
                if found >= count:
                    return await self._arrival_before(part, frame, count)
                count -= found
        return 0

    async def _arrival_before(self, part: LogPart, frame: Frame, count: int) -> int:
        async with contextlib.aclosing(self._read(part, [frame])) as pages:
            async for rows in pages:
                return [row.arrival for row in rows if self._wanted.has(row)][-count] - 1
        return frame.last_arrival

    async def _moved(self, part: LogPart) -> AsyncGenerator[list[LogRow], None]:
        frames = [
            frame
            for frame in await self._frames(part)
            if frame.last_arrival > self.after and frame.count(self._wanted.task_no, self._wanted.attempt)
        ]
        for run in _runs(frames):
            async with contextlib.aclosing(self._read(part, run)) as pages:
                async for rows in pages:
                    page = [row for row in rows if row.arrival > self.after and self._wanted.has(row)]
                    if page:
                        self.after = page[-1].arrival
                        yield page
        self.after = max(self.after, part.last_arrival)

    async def _frames(self, part: LogPart) -> tuple[Frame, ...]:
        size_bytes = part.size_bytes - part.index_start
        chunks = [chunk async for chunk in self._sources.store.get_range(part.key, part.index_start, size_bytes)]
        return read_index(part.key, b"".join(chunks))

    async def _read(self, part: LogPart, run: Sequence[Frame]) -> AsyncGenerator[list[LogRow], None]:
        """Yields the lines of frames that lie side by side, a frame at a time."""
        held, start = bytearray(), run[0].start
        waiting = list(reversed(run))
        stream = self._sources.store.get_range(part.key, start, run[-1].end - start)
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                held += chunk
                while waiting and len(held) >= waiting[-1].size_bytes:
                    frame = waiting.pop()
                    data = bytes(held[: frame.size_bytes])
                    del held[: frame.size_bytes]
                    yield await asyncio.to_thread(read_frame, part.key, data)


def _runs(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Yields frames that lie side by side together, as far as that is not too much."""
    run: list[Frame] = []
    for frame in frames:
        if run and (frame.start != run[-1].end or frame.end - run[0].start > _RUN_BYTES):
            yield run
            run = []
        run.append(frame)
    if run:
        yield run
