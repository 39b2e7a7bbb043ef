"""Losing a server and finding it again: backoff, log and metric, the same for all backends."""

import time
from typing import Final

import structlog
from prometheus_client import Counter

log = structlog.get_logger(__name__)

FIRST_PAUSE_S: Final = 0.05
LAST_PAUSE_S: Final = 2.0

_losses = Counter("formicary_broker_losses", "Times that the connection to the broker was lost.", ["broker"])
_returns = Counter("formicary_broker_reconnections", "Times that the lost broker was found again.", ["broker"])


class Lifeline:
    """Whether the server is there, as far as the last call could tell; reports each change once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lost_at: float | None = None

    def lost(self, reason: str) -> None:
        """Notes that a call failed for want of the server."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            _losses.labels(self.url).inc()
            log.warning("broker_lost", url=self.url, reason=reason)

    def found(self) -> None:
        """Notes that a call succeeded."""
        if self._lost_at is not None:
            away_s, self._lost_at = time.monotonic() - self._lost_at, None
            _returns.labels(self.url).inc()
            log.info("broker_found_again", url=self.url, away_s=round(away_s, 1))


class Backoff:
    """Pauses that double, up to a limit."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def pause_s(self) -> float:
        """Returns the pause before the next try, in seconds."""
        pause_s = self._next_s
        self._next_s = min(pause_s * 2, LAST_PAUSE_S)
        return pause_s

    def reset(self) -> None:
        """Begins anew, after a success."""
        self._next_s = FIRST_PAUSE_S
