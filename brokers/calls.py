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

        A cancellation is raised also where the driver swallowed it: ``asyncio.wait_for`` of Python 3.11 does so when
        what it waits for ends at the same moment.

        Raises:
            BrokerClosedError: the broker is closed, or was closed meanwhile.
        """
        self.check_open()

        async def call() -> T:
            return await work()

        running = asyncio.ensure_future(call())
        self._running.add(running)
        before = _cancel_count()
        try:
            result = await running
        except asyncio.CancelledError:
            if not self._is_open and not _cancel_count():
                raise BrokerClosedError(self._what) from None
            raise
        finally:
            self._running.discard(running)
        if _cancel_count() > before:
            raise asyncio.CancelledError
        return result


def _cancel_count() -> int:
    """Returns how often the current task was asked to end."""
    current = asyncio.current_task()
    return 0 if current is None else current.cancelling()
