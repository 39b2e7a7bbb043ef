"""A clock that moves only when told to."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A ``Clock`` whose wall time and boot time move together, by ``advance`` alone.

    Sleepers wake in the order of their times, and of their calls where these are equal.
    """

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start
        self._boottime_s = 1000.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Returns the wall time."""
        return self._now

    def boottime(self) -> float:
        """Returns the boot time in seconds."""
        return self._boottime_s

    async def sleep(self, delay_s: float) -> None:
        """Returns when ``advance`` has moved time on by ``delay_s``; a delay of 0 only yields to the loop."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._boottime_s + delay_s, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """Returns how many sleep."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, by_s: float) -> None:
        """Moves time on, waking each sleeper at its own time and letting the loop run in between."""
        target_s = self._boottime_s + by_s
        while self._sleepers and self._sleepers[0][0] <= target_s:
            due_s, _, future = heapq.heappop(self._sleepers)
            self._move_to(due_s)
            if not future.done():
                future.set_result(None)
            await _settle()
        self._move_to(target_s)
        await _settle()

    def _move_to(self, boottime_s: float) -> None:
        self._now += timedelta(seconds=boottime_s - self._boottime_s)
        self._boottime_s = boottime_s


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
