"""Accept or decline: a pure decision, made once per dispatch.

An ant remembers every dispatch that it accepted or refused, across its incarnations, as the highest number and the gaps
below it per (shard, epoch, incarnation): owners number their dispatches, so this memory does not grow. A copy of
one that was judged is neither run nor judged again. Order matters: a copy is recognised before anything is refused, or
a running attempt would be declined.

Requests to stop or to give back are answered for good too: where the ant does not hold the attempt, its owner gives the
task to another at once. So they teach the owner's epoch, or a dispatch that a former owner sends late would still run.
"""

from formicary.ant.leases import Leases
from formicary.ant.slots import Slots
from formicary.events.tasks import DeclineReason, TaskCancelRequested, TaskDispatched, TaskRecalled
from formicary.ids import Incarnation


class Numbers:
    """A set of numbers from 1, kept as its highest member and the ranges missing below."""

    __slots__ = ("_gaps", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self._gaps: list[range] = []

    @property
    def gap_count(self) -> int:
        """Returns how many ranges are missing."""
        return len(self._gaps)

    def add(self, number: int) -> bool:
        """Adds a number; tells whether it was new."""
        if number > self.highest:
            if number > self.highest + 1:
                self._gaps.append(range(self.highest + 1, number))
            self.highest = number
            return True
        return bool(self._gaps) and self._fill(number)

    def _fill(self, number: int) -> bool:
        for index, gap in enumerate(self._gaps):
            if number in gap:
                parts = (range(gap.start, number), range(number + 1, gap.stop))
                self._gaps[index : index + 1] = [part for part in parts if part]
                return True
        return False


class Acceptance:
    """Judges dispatches."""

    def __init__(self, leases: Leases, slots: Slots) -> None:
        self._leases = leases
        self._slots = slots
        self._judged: dict[tuple[int, int, Incarnation], Numbers] = {}
        self.is_draining = False

    def note_epoch(self, request: TaskCancelRequested | TaskRecalled) -> None:
        """Learns the epoch of an owner that asks for something: nothing is accepted from older ones any more."""
        self._leases.note_epoch(request.shard, request.epoch)

    def is_copy(self, dispatch: TaskDispatched) -> bool:
        """Notes the dispatch as judged; tells whether it was already."""
        numbers = self._judged.get((dispatch.shard, dispatch.epoch, dispatch.incarnation))
        if numbers is None:
            numbers = self._judged[dispatch.shard, dispatch.epoch, dispatch.incarnation] = Numbers()
        return not numbers.add(dispatch.number)

    def refusal(self, dispatch: TaskDispatched, incarnation: Incarnation, now: float) -> str | None:
        """Returns the ``DeclineReason`` of a dispatch that is no copy, or None: accept it."""
        self._leases.note_epoch(dispatch.shard, dispatch.epoch)
        if dispatch.incarnation != incarnation:
            return DeclineReason.WRONG_INCARNATION
        if dispatch.epoch < self._leases.epochs[dispatch.shard]:
            return DeclineReason.OLD_EPOCH
        if not self._leases.holds(dispatch.shard, now):
            return DeclineReason.NO_LEASE
        if self.is_draining:
            return DeclineReason.DRAINING
        if not self._slots.has_room:
            return DeclineReason.BUSY
        return None
