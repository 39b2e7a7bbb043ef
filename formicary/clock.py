"""Time as a dependency: everything that waits or stamps receives a ``Clock``."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, boot time for durations; the two are never compared."""

    def now(self) -> datetime:
        """Returns the wall time, aware, UTC."""
        ...

    def boottime(self) -> float:
        """Returns seconds of a clock that never jumps and also runs while the machine sleeps."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Waits ``delay_s`` seconds."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Returns the wall time, aware, UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """Returns CLOCK_BOOTTIME where there is one: ``time.monotonic`` stops while a Linux machine is suspended."""
        return _boottime()

    async def sleep(self, delay_s: float) -> None:
        """Waits on the running loop."""
        await asyncio.sleep(delay_s)


def _boottime() -> float:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def time_text(at: datetime) -> str:
    """Returns a time as RFC 3339 in UTC with microseconds."""
    utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:-6] + "Z"
