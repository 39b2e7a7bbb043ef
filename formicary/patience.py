"""Waiting for what is away when a process starts."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from formicary.clock import Clock
from formicary.errors import LoginRefusedError, UnavailableError
from formicary.outage import Outage

T = TypeVar("T")

#: Between two tries, in seconds: doubled from the first to the last.
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 2.0


class Patience:
    """How a start takes it that a server is away: each step is tried again, for ever or for so long.

    Args:
        clock: the time.
        give_up_after_s: how long one step may take, in seconds; None: as long as it takes.
    """

    def __init__(self, clock: Clock, give_up_after_s: float | None = None) -> None:
        self._clock = clock
        self._give_up_after_s = give_up_after_s

    async def wait_out(
        self, event: str, step: Callable[[], Awaitable[T]], away: type[Exception] = UnavailableError
    ) -> T:
        """Returns what ``step`` returns, which is safe to repeat.

        Args:
            event: the name of the log lines meanwhile.
            step: what needs the server.
            away: what it raises while the server is away.

        Raises:
            LoginRefusedError: at once; waiting would not help.
            Exception: of the class ``away``, when it has been long enough.
        """
        began, pause_s, outage = self._clock.boottime(), FIRST_RETRY_S, Outage(event, self._clock.boottime)
        while True:
            try:
                result = await step()
            except LoginRefusedError:
                raise
            except away as error:
                if self._is_over(began, pause_s):
                    raise
                outage.note(str(error))
            else:
                outage.over()
                return result
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, LAST_RETRY_S)

    def _is_over(self, began: float, pause_s: float) -> bool:
        limit_s = self._give_up_after_s
        return limit_s is not None and self._clock.boottime() - began + pause_s > limit_s
