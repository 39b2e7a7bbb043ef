"""Waiting for something to become true that only outside news can change."""

import asyncio
from collections.abc import Awaitable, Callable


class Changes:
    """Wakes everyone who waits for a claim, at each piece of news. Not thread-safe."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def announce(self) -> None:
        """Has all claims looked at again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def until(
        self, is_reached: Callable[[], bool], judge: Callable[[], Awaitable[float | None]] | None = None
    ) -> None:
        """Returns when a claim is true.

        Args:
            judge: called at each look; raises what makes waiting vain, or returns in how many seconds to look again
                (None: at the next news).
        """
        loop = asyncio.get_running_loop()
        while not is_reached():
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append(waiter)
            limit_s = None if judge is None else await judge()
            try:
                async with asyncio.timeout(limit_s):
                    await waiter
            except TimeoutError:
                continue
