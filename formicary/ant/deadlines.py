"""Time limits of running attempts, by one timer for all of them.

Adding one costs a comparison and ending one costs nothing: the timer is armed for the earliest limit ever added, and
when it fires, the attempts that run then (at most as many as there are slots) are looked through once.
"""

import asyncio
import math
from collections.abc import Callable

from formicary.ant.assignments import Assignment, Key


class Deadlines:
    """Calls ``expire(assignment)`` for each watched attempt whose time is up, once."""

    def __init__(self, expire: Callable[[Assignment], None]) -> None:
        self._expire = expire
        self._watched: dict[Key, Assignment] = {}
        self._armed_for = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, assignment: Assignment, limit_s: float) -> None:
        """Watches an attempt from now on."""
        deadline = asyncio.get_running_loop().time() + limit_s
        assignment.deadline = deadline
        self._watched[assignment.key] = assignment
        if deadline < self._armed_for:
            self._arm(deadline)

    def remove(self, assignment: Assignment) -> None:
        """Stops watching; the timer stays as it is."""
        self._watched.pop(assignment.key, None)

    def close(self) -> None:
        """Lets go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._watched.clear()

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = asyncio.get_running_loop().call_at(deadline, self._fire)

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        for assignment in [item for item in self._watched.values() if (item.deadline or 0.0) <= now]:
            del self._watched[assignment.key]
            self._expire(assignment)
        self._timer, self._armed_for = None, math.inf
        rest = min((item.deadline or 0.0 for item in self._watched.values()), default=None)
        if rest is not None:
            self._arm(rest)
