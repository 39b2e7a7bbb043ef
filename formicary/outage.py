"""What the log says while something is away: at once, then ever more rarely, and once more when it is back."""

import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: From the first line to the second, in seconds; each further pause is twice as long, up to the last.
FIRST_PAUSE_S: Final = 10.0
LAST_PAUSE_S: Final = 600.0


class Outage:
    """One thing that may be away, as one of those who need it sees it.

    Args:
        event: the name of its log lines.
        now: the seconds of a clock that never jumps.
    """

    def __init__(self, event: str, now: Callable[[], float] = time.monotonic) -> None:
        self._event = event
        self._now = now
        self._since: float | None = None
        self._say_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    def note(self, reason: str, **fields: object) -> None:
        """Notes that it is away still; says so when it is time."""
        now = self._now()
        if self._since is None:
            self._since, self._say_at, self._pause_s = now, now, FIRST_PAUSE_S
        if now < self._say_at:
            return
        log.warning(self._event, reason=reason, away_s=round(now - self._since, 1), **fields)
        self._say_at = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)

    def over(self) -> None:
        """Notes that it is there; says how long it was not."""
        if self._since is not None:
            log.info("waited_enough", after=self._event, away_s=round(self._now() - self._since, 1))
            self._since = None
