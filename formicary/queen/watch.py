"""Waiting for something about a job: its end, or new lines of its log.

A signal only shortens the wait. The truth is in the rows, and whoever waits also looks there at growing intervals,
because the job may belong to another queen.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from formicary.ids import JobId
from formicary.store.jobs import StoredJob

#: The first and the longest interval between two looks at the row, in seconds.
_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 0.5


Seen = TypeVar("Seen")

#: What a signal says of its job, or None where it only says that there is something to see.
News = Callable[[JobId], StoredJob | None]


class Signals:
    """Wake-ups by job; costs nothing where nobody waits."""

    def __init__(self) -> None:
        self._waiters: dict[JobId, set[asyncio.Future[StoredJob | None]]] = {}

    def notify(self, job_ids: Iterable[JobId], news: News | None = None) -> None:
        """Wakes whoever waits for one of ``job_ids``; ``news`` is asked about those that somebody waits for."""
        if not self._waiters:
            return
        for job_id in job_ids:
            waiters = self._waiters.pop(job_id, None)
            if waiters:
                _resolve(waiters, None if news is None else news(job_id))

    def arm(self, job_id: JobId) -> "asyncio.Future[StoredJob | None]":
        """Returns a future that the next signal for ``job_id`` resolves; give it back to ``disarm``."""
        future: asyncio.Future[StoredJob | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        return future

    def disarm(self, job_id: JobId, future: "asyncio.Future[StoredJob | None]") -> None:
        """Forgets a future of ``arm``."""
        future.cancel()
        waiters = self._waiters.get(job_id)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[job_id]

    async def wait_armed(self, future: "asyncio.Future[StoredJob | None]", timeout_s: float) -> StoredJob | None:
        """Returns when the signal of ``future`` came, with what it says, or when ``timeout_s`` passed."""
        await asyncio.wait({future}, timeout=timeout_s)
        return future.result() if future.done() else None


class JobWatch:
    """Lets callers wait for the end of a job. The supervisor calls ``ended_many`` after the commit."""

    def __init__(self) -> None:
        self._signals = Signals()

    def ended(self, job_id: JobId) -> None:
        """Says that the end of ``job_id`` is committed."""
        self._signals.notify((job_id,))

    def ended_many(self, job_ids: Iterable[JobId], news: News | None = None) -> None:
        """Says that the ends of ``job_ids`` are committed, and with ``news`` what was."""
        self._signals.notify(job_ids, news)

    async def wait(
        self, job_id: JobId, timeout_s: float, look: Callable[[], Awaitable[Seen | None]]
    ) -> Seen | StoredJob | None:
        """Waits up to ``timeout_s`` for the end of ``job_id``; returns what ``look`` saw, or the job as it ended.

        ``look`` reads rows, and returns None while there is nothing to see: at first, after a signal that does not say
        more, and at growing intervals. None: the time is up.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        interval_s = _FIRST_LOOK_S
        while True:
            future = self._signals.arm(job_id)
            try:
                if (seen := await look()) is not None:
                    return seen
                left_s = deadline - loop.time()
                if left_s <= 0:
                    return None
                if (ended := await self._signals.wait_armed(future, min(interval_s, left_s))) is not None:
                    return ended
            finally:
                self._signals.disarm(job_id, future)
            interval_s = min(interval_s * 2, _LONGEST_LOOK_S)


def _resolve(waiters: "Iterable[asyncio.Future[StoredJob | None]]", news: StoredJob | None) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(news)
