"""Slots bound what runs; prefetch bounds what waits; first come, first served."""

from collections import OrderedDict

from formicary.ant.assignments import Assignment, Key, Phase


class Slots:
    """The queue in front of the running attempts."""

    def __init__(self, slots: int, prefetch: int) -> None:
        self._slots = slots
        self._prefetch = prefetch
        self._waiting: OrderedDict[Key, Assignment] = OrderedDict()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Returns how many wait."""
        return len(self._waiting)

    @property
    def free(self) -> int:
        """Returns how many slots neither a running nor a waiting attempt will take."""
        return max(0, self._slots - self.running - len(self._waiting))

    @property
    def has_room(self) -> bool:
        """Tells whether one more may be accepted: to run now or to wait."""
        taken = self.running + len(self._waiting)
        return taken < self._slots + self._prefetch

    def add(self, assignment: Assignment) -> None:
        """Queues an assignment behind all that wait."""
        self._waiting[assignment.key] = assignment

    def take(self) -> Assignment | None:
        """Moves the first that waits to a free slot; None where nothing waits or no slot is free."""
        if self.running >= self._slots or not self._waiting:
            return None
        self.running += 1
        _, assignment = self._waiting.popitem(last=False)
        # From here on it is stopped and waited for, though its worker has yet to begin.
        assignment.phase = Phase.RUNNING
        return assignment

    def release(self) -> None:
        """Frees a slot that ``take`` gave."""
        self.running -= 1

    def withdraw(self, key: Key) -> Assignment | None:
        """Takes one out of the queue; None where it does not wait."""
        return self._waiting.pop(key, None)

    def withdraw_all(self) -> list[Assignment]:
        """Empties the queue and returns what waited, in order."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        return waiting
