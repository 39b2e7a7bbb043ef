"""Gives a colony its jobs, whatever happens to it meanwhile, and watches them from outside."""

import random
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.colony.jobs import Kind, definition
from tests.e2e.colony.processes import Colony, Problem

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
#: Between a submission and its cancel, in seconds.
CANCEL_AFTER_S = 1.2
#: Between two looks at a job that runs, in seconds.
LOOK_S = 0.15


class Accepted(NamedTuple):
    """A job that a queen has answered 201 for."""

    job_id: str
    kind: Kind


class Success(NamedTuple):
    """What somebody was told: this attempt succeeded. The ledger had ``lines`` lines when the answer was there."""

    job_id: str
    task_type: str
    attempt: int
    lines: int


class Workload:
    """Submits ``jobs`` spread over ``over_s`` seconds, and cancels those that are to be cancelled."""

    def __init__(self, colony: Colony, jobs: Sequence[Kind], over_s: float, ledger: Path) -> None:
        self._colony = colony
        self._jobs = jobs
        self._pause_s = over_s / max(1, len(jobs))
        self._ledger = ledger
        self._to_cancel: list[tuple[float, str]] = []
        self._run = uuid.uuid4().hex
        self.accepted: list[Accepted] = []
        self.successes: list[Success] = []
        self.ends: dict[str, Any] = {}

    def upload(self) -> None:
        """Saves the definitions."""
        for kind in {kind.name: kind for kind in self._jobs}.values():
            self._colony.ask("POST", "/definitions", definition(kind))

    def submit_all(self) -> None:
        """Returns when every job is accepted and every cancel too."""
        begun = time.monotonic()
        for number, kind in enumerate(self._jobs):
            self._cancel_due()
            time.sleep(max(0.0, begun + number * self._pause_s - time.monotonic()))
            self._submit(number, kind)
        while self._to_cancel:
            self._cancel_due()
            time.sleep(LOOK_S)

    def _submit(self, number: int, kind: Kind) -> None:
        key = {"Idempotency-Key": f"{self._run}-{number}"}
        job_id = self._colony.ask("POST", "/jobs", {"job_type": kind.name}, key)["id"]
        self.accepted.append(Accepted(job_id, kind))
        if kind.is_cancelled:
            self._to_cancel.append((time.monotonic() + CANCEL_AFTER_S, job_id))

    def _cancel_due(self) -> None:
        while self._to_cancel and self._to_cancel[0][0] <= time.monotonic():
            self._colony.ask("POST", f"/jobs/{self._to_cancel.pop(0)[1]}/cancel", refusals=(409,))

    def wait(self, patience_s: float) -> None:
        """Returns when every accepted job has ended; fails, naming those that have not."""
        deadline = time.monotonic() + patience_s
        for job_id, kind in self.accepted:
            while job_id not in self.ends:
                job = self._colony.ask("GET", f"/jobs/{job_id}?wait_s=2")
                if job["state"] in TERMINAL:
                    self.ends[job_id] = job
                assert time.monotonic() < deadline, (
                    f"{kind.name} {job_id} has not ended:\n{job}\n{self._colony.tails()}"
                )

    def watching(self, dice: random.Random) -> "Watch":
        """Returns a watch that looks at running jobs until it is left."""
        return Watch(self, self._colony, self._ledger, dice)


class Watch:
    """Notes every success that a queen tells of, with the length that the ledger had then."""

    def __init__(self, work: Workload, colony: Colony, ledger: Path, dice: random.Random) -> None:
        self._work = work
        self._colony = colony
        self._ledger = ledger
        self._dice = dice
        self._known: set[tuple[str, str, int]] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            newest = self._work.accepted[-40:]
            queens = [queen for queen in self._colony.queens.values() if queen.is_ready]
            if newest and queens:
                self._look(self._dice.choice(queens), self._dice.choice(newest).job_id)

    def _look(self, queen: Any, job_id: str) -> None:
        try:
            job = queen.call("GET", f"/jobs/{job_id}", timeout_s=2.0)
        except Problem:
            return
        with self._ledger.open() as ledger:
            lines = sum(1 for _ in ledger)
        for task in job["tasks"]:
            key = (job_id, task["task_type"], task["attempt"])
            if task["state"] == "COMPLETED" and key not in self._known:
                self._known.add(key)
                self._work.successes.append(Success(*key, lines))
