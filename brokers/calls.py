"""Calls that ``close`` ends: each runs in a task of its own, so that it can be told from its caller's cancellation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from brokers.errors import BrokerClosedError

T = TypeVar("T")


async def end_task(task: "asyncio.Task[None] | None") -> None:
    """Cancels a task and waits for its end; again where a driver took the cancellation for its own time limit."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)


class Calls:
    """The calls under way of one broker. Closed at first."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._is_open = False
        self._running: set[asyncio.Future[Any]] = set()

    def open(self) -> None:
        """Lets calls begin."""
        self._is_open = True

    def close(self) -> None:
        """Ends the calls under way with ``BrokerClosedError``, and lets none begin."""
        self._is_open = False
        for call in list(self._running):
            call.cancel()

    def check_open(self) -> None:
        """Raises ``BrokerClosedError`` after ``close`` and before ``open``."""
        if not self._is_open:
            raise BrokerClosedError(self._what)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Returns what ``work`` returns.

        Raises:
            BrokerClosedError: the broker is closed, or was closed meanwhile.
        """
        self.check_open()

        async def call() -> T:
            return await work()

        running = asyncio.ensure_future(call())
        self._running.add(running)
        try:
            return await running
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not self._is_open and current is not None and not current.cancelling():
                raise BrokerClosedError(self._what) from None
            raise
        finally:
            self._running.discard(running)
