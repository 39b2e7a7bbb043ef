"""Delays and timeouts of running jobs: one heap, no task or handle per timer."""

import heapq
from typing import NamedTuple

from formicary.queen.supervisor.live import LiveJob

#: Timers below which those of ended jobs are left to run out.
GONE_SLACK = 1000


class Wake(NamedTuple):
    """A retry or poll is due for this task."""

    live: LiveJob
    task_no: int
    attempt: int
    job_attempt: int


class Timeout(NamedTuple):
    """The job's time is over, if ``number`` is still its newest watch."""

    live: LiveJob
    number: int
    job_attempt: int


class Timers:
    """Times are of ``Clock.boottime``."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Wake | Timeout]] = []
        self._count = 0
        self._gone_count = 0

    def add(self, due: float, item: Wake | Timeout) -> None:
        """Adds an item to be taken once ``due`` has come."""
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, item))

    def next_due(self) -> float | None:
        """Returns when the earliest item is due; passes over those of jobs that are gone."""
        while self._heap and self._heap[0][2].live.is_gone:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[Wake | Timeout]:
        """Takes the items that are due."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return [item for item in due if not item.live.is_gone]

    def job_gone(self) -> None:
        """Notes that a job left memory; its timers are let go of once half of all are such."""
        self._gone_count += 1
        if self._gone_count * 2 > len(self._heap) > GONE_SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].live.is_gone]
            heapq.heapify(self._heap)
            self._gone_count = 0
