"""Progress along the edges of one job: numbers only, derived from the cells, never stored."""

from array import array
from collections.abc import Iterator

from formicary.states.graph import Plan, Route

#: Where a PENDING task stands between its edges and its dispatch.
BLOCKED, OFFERED, HELD, DELAYED = range(4)


class EdgeIndex:
    """Counts of unresolved incoming edges, and what the resolved ones said.

    Attributes:
        unresolved: incoming edges that are still open, per task.
        waits: BLOCKED: edges are open (or it does not wait); OFFERED: the owner may dispatch it; HELD: runnable, but
            the job is paused or stopping; DELAYED: a timer is awaited.
    """

    __slots__ = ("_fired", "_refused", "unresolved", "waits")

    def __init__(self, plan: Plan) -> None:
        self.unresolved = array("i", plan.in_counts)
        self._fired = bytearray(plan.size)
        self._refused = bytearray(plan.size)
        self.waits = bytearray(plan.size)

    def resolve(self, route: Route) -> list[int]:
        """Resolves the edges of one task; returns the targets that have no open edge left."""
        unresolved = self.unresolved
        ready = []
        fired, dead, refused = route
        for no in fired:
            self._fired[no] = 1
            unresolved[no] -= 1
            if not unresolved[no]:
                ready.append(no)
        for no in dead:
            unresolved[no] -= 1
            if not unresolved[no]:
                ready.append(no)
        for no in refused:
            self._refused[no] = 1
            unresolved[no] -= 1
            if not unresolved[no]:
                ready.append(no)
        return ready

    def may_run(self, no: int) -> bool:
        """Says whether a task with no open edge runs: one fired, none refused."""
        return bool(self._fired[no]) and not self._refused[no]

    def waiting(self, kind: int) -> Iterator[int]:
        """Yields the tasks that wait in this way, ascending; the caller may change their way meanwhile."""
        sought = bytes((kind,))
        no = self.waits.find(sought)
        while no >= 0:
            yield no
            no = self.waits.find(sought, no + 1)
