"""How a run's end reaches those who wait for it."""

import asyncio

from executors.base import Outcome, Reason

#: Exit code of a run that was stopped before it ended by itself: 128 + SIGTERM.
STOPPED_EXIT_CODE = 143


def stopped_outcome(reason: Reason, message: str | None = None) -> Outcome:
    """Returns the outcome of a run that ended because it was told to."""
    words = "ran out of time" if reason is Reason.TIMED_OUT else "was cancelled"
    return Outcome(reason, STOPPED_EXIT_CODE, False, message=message or f"the task {words} and was stopped")


class Ending:
    """The one end of a run: settled once, awaited by any number of waiters.

    Each waiter has a future of its own, so cancelling one touches neither the run nor another waiter. Not
    thread-safe: everything happens in the ant's loop.
    """

    __slots__ = ("_error", "_outcome", "_waiters")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._outcome is not None or self._error is not None

    def settle(self, outcome: Outcome) -> None:
        """Ends the run; only the first end counts."""
        if not self.is_over:
            self._outcome = outcome
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Ends the run with an error that every ``wait`` raises; only the first end counts."""
        if not self.is_over:
            self._error = error
            self._wake()

    async def wait(self) -> Outcome:
        """Returns the outcome, or raises the error the run ended with."""
        await self.over()
        if self._outcome is None:
            assert self._error is not None
            raise self._error
        return self._outcome

    async def over(self) -> None:
        """Returns when the run has ended, however it did."""
        if self.is_over:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
