"""Waiting for something about a job: its end, or new lines of its log.

A signal only shortens the wait. The truth is in the rows, and whoever waits also looks there at growing intervals,
because the job may belong to another queen.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from formicary.ids import JobId

#: The first and the longest interval between two looks at the row, in seconds.
_FIRST_LOOK_S = 0.1
_LONGEST_LOOK_S = 0.5


class Signals:
    """Wake-ups by job; costs nothing where nobody waits."""

    def __init__(self) -> None:
        self._waiters: dict[JobId, set[asyncio.Future[None]]] = {}

    def notify(self, job_ids: Iterable[JobId]) -> None:
        """Wakes whoever waits for one of ``job_ids``."""
        if not self._waiters:
            return
        for job_id in job_ids:
            for future in self._waiters.pop(job_id, ()):
                if not future.done():
                    future.set_result(None)

    def arm(self, job_id: JobId) -> asyncio.Future[None]:
        """Returns a future that the next signal for ``job_id`` resolves; give it back to ``disarm``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        return future

    def disarm(self, job_id: JobId, future: asyncio.Future[None]) -> None:
        """Forgets a future of ``arm``."""
        future.cancel()
        waiters = self._waiters.get(job_id)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[job_id]

    async def wait_armed(self, future: asyncio.Future[None], timeout_s: float) -> None:
        """Returns when the signal of ``future`` came, or when ``timeout_s`` passed."""
        await asyncio.wait({future}, timeout=timeout_s)


class JobWatch:
    """Lets callers wait for the end of a job. The supervisor calls ``ended_many`` after the commit."""

    def __init__(self) -> None:
        self._signals = Signals()

    def ended(self, job_id: JobId) -> None:
        """Says that the end of ``job_id`` is committed."""
        self._signals.notify((job_id,))

    def ended_many(self, job_ids: Iterable[JobId]) -> None:
        """Says that the ends of ``job_ids`` are committed."""
        self._signals.notify(job_ids)

    async def wait(self, job_id: JobId, timeout_s: float, has_ended: Callable[[], Awaitable[bool]]) -> bool:
        """Waits up to ``timeout_s`` for the end of ``job_id``; returns whether ``has_ended`` says so.

        ``has_ended`` looks at the row: at first, after a signal, and at growing intervals.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        interval_s = _FIRST_LOOK_S
        while True:
            future = self._signals.arm(job_id)
            try:
                if await has_ended():
                    return True
                left_s = deadline - loop.time()
                if left_s <= 0:
                    return False
                await self._signals.wait_armed(future, min(interval_s, left_s))
            finally:
                self._signals.disarm(job_id, future)
            interval_s = min(interval_s * 2, _LONGEST_LOOK_S)
