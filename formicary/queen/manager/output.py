"""Reading the stored output of tasks, once or for as long as the job runs.

The lines of one job become visible in order of their arrival numbers (see ``LogStore.read``), so that a follower needs
to keep nothing but the last number it saw, and wherever the lines are meanwhile (see ``LogReader``).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from formicary.artifacts.base import ArtifactError, ArtifactStoreUnavailableError
from formicary.clock import Clock
from formicary.errors import FormicaryError, UnavailableError
from formicary.ids import JobId
from formicary.model.jobs import LogLine
from formicary.queen.log_reader import LogReader, LogSources, Wanted
from formicary.queen.manager.contracts import LogBacklog
from formicary.queen.watch import Signals
from formicary.store.logs import LogRow

#: Interval between two looks where no signal comes, in seconds.
_LOOK_S = 0.5
#: Interval between two looks at the backlog of an ended job, in seconds.
_BACKLOG_LOOK_S = 0.01
#: How long the lines of an ended job are waited for, in seconds.
LAST_LINES_S = 5.0


class OutputLostError(FormicaryError):
    """Moved output is not in the artifact store as it was put there: some of it cannot be had any more."""

    code = "ERR_ARTIFACT"


class Selection(NamedTuple):
    """Which lines: of one task or all (None), of one attempt or all; ``names`` by task number."""

    job_id: JobId
    task_no: int | None
    attempt: int | None
    names: tuple[str, ...]


class Extent(NamedTuple):
    """Which part of them: behind the line with the arrival ``after``, or the last ``tail``; ``limit`` at most."""

    after: int = 0
    tail: int | None = None
    limit: int | None = None


EVERYTHING = Extent()


async def stored_lines(sources: LogSources, selection: Selection, extent: Extent) -> AsyncIterator[list[LogLine]]:
    """Yields what is stored now, in order of arrival, in pages.

    Raises:
        UnavailableError: the database or the artifact store is away.
        OutputLostError: some of it cannot be had any more.
    """
    left = extent.limit
    with _translated(selection.job_id):
        reader = await _reader(sources, selection, extent)
        async for rows in reader.pages():
            yield _lines(rows if left is None else rows[:left], selection)
            if left is not None:
                left -= len(rows)
                if left <= 0:
                    return


class Follower:
    """Sends each line of a job once, as it arrives, until the job ended and every line was sent."""

    def __init__(self, sources: LogSources, signals: Signals, backlog: LogBacklog, clock: Clock) -> None:
        self._sources = sources
        self._signals = signals
        self._backlog = backlog
        self._clock = clock

    async def follow(
        self, selection: Selection, extent: Extent, has_ended: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[list[LogLine]]:
        """Yields pages of new lines; an empty page now and then, so that the caller notices a reader that left.

        Raises:
            UnavailableError: the database or the artifact store is away.
            OutputLostError: some of it cannot be had any more.
        """
        with _translated(selection.job_id):
            reader = await _reader(self._sources, selection, extent)
        while True:
            future = self._signals.arm(selection.job_id)
            try:
                is_last = await has_ended()
                if is_last:
                    await wait_for_writers(self._backlog, self._clock)
                with _translated(selection.job_id):
                    async for rows in reader.pages():
                        yield _lines(rows, selection)
                if is_last:
                    return
                yield []
                await self._signals.wait_armed(future, _LOOK_S)
            finally:
                self._signals.disarm(selection.job_id, future)


async def wait_for_writers(backlog: LogBacklog, clock: Clock) -> None:
    """Returns when what was published before can be read, or after ``LAST_LINES_S``, or where nobody can say."""
    with suppress(UnavailableError, TimeoutError):
        async with asyncio.timeout(LAST_LINES_S):
            while await backlog.backlog():
                await clock.sleep(_BACKLOG_LOOK_S)


@contextmanager
def _translated(job_id: JobId) -> Iterator[None]:
    try:
        yield
    except ArtifactStoreUnavailableError as error:
        raise UnavailableError(f"the artifact store, which has output of job {job_id}, is away: {error}") from error
    except ArtifactError as error:
        raise OutputLostError(f"output of job {job_id} is lost in the artifact store: {error}") from error


async def _reader(sources: LogSources, selection: Selection, extent: Extent) -> LogReader:
    wanted = Wanted(selection.job_id, selection.task_no, selection.attempt)
    reader = LogReader(sources, wanted, extent.after)
    if extent.tail is not None:
        await reader.seek_last(extent.tail)
    return reader


def _lines(rows: list[LogRow], selection: Selection) -> list[LogLine]:
    return [_line(row, selection.names) for row in rows]


def _line(row: LogRow, names: tuple[str, ...]) -> LogLine:
    task_type = names[row.task_no] if row.task_no < len(names) else str(row.task_no)
    return LogLine(
        task_type=task_type,
        attempt=row.attempt,
        seq=row.seq,
        stream=row.stream,
        at=row.at,
        text=row.line,
        arrival=row.arrival,
    )
