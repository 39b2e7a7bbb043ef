"""Runnable tasks that wait for room: by requirement, then priority of the job, then age."""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from formicary.ids import place_of
from formicary.queen.registry import Requirement
from formicary.queen.supervisor.live import LiveJob

Entry = tuple[LiveJob, int]

#: Entries of a lane that are looked at when people ask why something waits.
HEADS = 1000
#: Jobs that may leave memory before the queue is looked through for their tasks.
GONE_SLACK = 1000


def requirement_of(live: LiveJob, task_no: int) -> Requirement:
    """Returns what a task needs of an ant now: where only a place keeps attempts apart, all go where the first did."""
    task = live.program.tasks[task_no]
    if task.is_placed and (incarnation := live.run.tasks[task_no].incarnation) is not None:
        return task.requirement._replace(place=place_of(incarnation))
    return task.requirement


class ReadyQueue:
    """Tasks that could be dispatched now. Withdrawn ones stay and are passed over when their turn comes."""

    def __init__(self) -> None:
        self._lanes: dict[Requirement, dict[int, deque[Entry]]] = {}
        self._gone_count = 0

    def add(self, live: LiveJob, task_no: int) -> None:
        """Adds a runnable task behind those of its priority."""
        requirement = requirement_of(live, task_no)
        lanes = self._lanes.get(requirement)
        if lanes is None:
            lanes = self._lanes[requirement] = {}
        lane = lanes.get(live.record.priority)
        if lane is None:
            lane = lanes[live.record.priority] = deque()
        lane.append((live, task_no))

    def requirements(self) -> list[Requirement]:
        """Returns the requirements for which something waits."""
        return list(self._lanes)

    def count(self, requirement: Requirement) -> int:
        """Returns how many tasks wait for this, withdrawn ones that nobody passed over yet included."""
        return sum(len(lane) for lane in self._lanes.get(requirement, {}).values())

    def pop(self, requirement: Requirement) -> Entry | None:
        """Takes the next task that is still waiting, or None where there is none."""
        lanes = self._lanes.get(requirement)
        while lanes:
            priority = max(lanes) if len(lanes) > 1 else next(iter(lanes))
            lane = lanes[priority]
            while lane:
                live, task_no = lane.popleft()
                if not live.is_gone and live.run.is_waiting(task_no):
                    return live, task_no
            del lanes[priority]
        self._lanes.pop(requirement, None)
        return None

    def job_gone(self) -> None:
        """Notes that a job left memory. Tasks of such jobs are let go of now and then: nobody may ever ask for them."""
        self._gone_count += 1
        if self._gone_count > GONE_SLACK and self._gone_count > self.size():
            self._gone_count = 0
            self._let_go()

    def size(self) -> int:
        """Returns how many tasks are queued, withdrawn ones that nobody passed over yet included."""
        return sum(len(lane) for lanes in self._lanes.values() for lane in lanes.values())

    def _let_go(self) -> None:
        for requirement, lanes in list(self._lanes.items()):
            for priority, lane in list(lanes.items()):
                lanes[priority] = deque(entry for entry in lane if not entry[0].is_gone)
                if not lanes[priority]:
                    del lanes[priority]
            if not lanes:
                del self._lanes[requirement]

    def heads(self) -> Iterator[tuple[Requirement, Entry]]:
        """Yields the waiting entries with their requirements, of each lane the first ``HEADS``."""
        for requirement, lanes in self._lanes.items():
            for lane in lanes.values():
                for live, task_no in islice(lane, HEADS):
                    if not live.is_gone and live.run.is_waiting(task_no):
                        yield requirement, (live, task_no)
