"""Room for one colony of a test's own making, and what the tests look at from outside."""

import fcntl
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.colony import jobs
from tests.e2e.colony.invariants import Line, read_ledger
from tests.e2e.colony.processes import PATIENCE_S, Colony, Queen
from tests.e2e.colony.servers import BrokerServer, PostgresServer
from tests.e2e.colony.workload import TERMINAL

#: As many jobs as this almost surely have some in the shards of each of two queens.
MANY = 24
OWNERS = "SELECT name, owner, epoch FROM leases WHERE shard IS NOT NULL ORDER BY shard"


class Stage:
    """A database and topics that nobody else uses; one colony at a time stands on them."""

    def __init__(self, folder: Path, broker: BrokerServer, postgres: PostgresServer) -> None:
        folder.mkdir()
        self.folder = folder
        self.broker = broker
        self.postgres = postgres
        self.database_url = postgres.new_database(folder.name)
        self.broker_url = f"{broker.url}&prefix={folder.name}:"
        self.shop = jobs.Workshop(folder)
        self._colony: Colony | None = None

    def colony(self, **options: Any) -> Colony:
        """Starts a colony; the options are those of ``Colony``."""
        colony = self.unstarted(**options)
        colony.start()
        return colony

    def unstarted(self, **options: Any) -> Colony:
        """Returns a colony whose processes are still to be started."""
        self._colony = Colony(self.folder, database_url=self.database_url, broker_url=self.broker_url, **options)
        return self._colony

    def close(self) -> None:
        """Ends the colony."""
        if self._colony is not None:
            self._colony.end()

    @property
    def ledger(self) -> list[Line]:
        """Returns what the tasks noted so far."""
        return read_ledger(self.shop.ledger)

    def lines(self, job_id: str, task_type: str, word: str) -> list[Line]:
        """Returns what one task noted."""
        return [line for line in self.ledger if (line.job_id, line.task_type, line.word) == (job_id, task_type, word)]

    def owners(self) -> dict[str, int]:
        """Returns how many shards each queen owns."""
        found: dict[str, int] = {}
        for row in self.postgres.fetch(self.database_url, OWNERS):
            found[row["owner"]] = found.get(row["owner"], 0) + 1
        return found

    def rows(self, sql: str) -> list[Any]:
        """Returns rows of the colony's database."""
        return self.postgres.fetch(self.database_url, sql)

    def submit(self, queen: Queen, job_type: str, *tasks: str, count: int = 1) -> list[str]:
        """Saves a definition and submits jobs of it by one queen; returns their ids."""
        queen.call("POST", "/definitions", f"job_type: {job_type}\ntasks:\n" + "".join(tasks))
        return [queen.call("POST", "/jobs", {"job_type": job_type})["id"] for _ in range(count)]

    def chain(self, length: int, seconds: float) -> list[str]:
        """Returns tasks that run one after the other."""
        names = [f"t{number}" for number in range(length)]
        return [self.shop.python(name, seconds, "".join(names[n - 1 : n])) for n, name in enumerate(names)]

    def is_held(self, job_id: str, task_type: str) -> bool:
        """Says whether a process of the task lives: it holds the task's lock."""
        with (self.folder / "locks" / f"{job_id}.{task_type}").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def overlaps(self) -> list[Line]:
        """Returns every attempt that ran beside another one of its task."""
        return [line for line in self.ledger if line.word == "overlap"]

    def attempts_twice(self) -> list[tuple[str, str]]:
        """Returns the tasks that were started more than once."""
        starts = [(line.job_id, line.task_type) for line in self.ledger if line.word == "start"]
        return sorted({start for start in starts if starts.count(start) > 1})


def wait_for_end(queen: Queen, job_id: str, timeout_s: float = PATIENCE_S) -> Any:
    """Returns a job once it has ended, as one queen tells it."""
    deadline = time.monotonic() + timeout_s
    while True:
        job = queen.call("GET", f"/jobs/{job_id}?wait_s=5")
        if job["state"] in TERMINAL:
            return job
        assert time.monotonic() < deadline, f"has not ended: {job}"


def at(text: str) -> float:
    """Returns a time of the API in seconds."""
    return datetime.fromisoformat(text).timestamp()


def poll(claim: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> float:
    """Returns the seconds until the claim held."""
    began = time.monotonic()
    while not claim():
        assert time.monotonic() < began + timeout_s, f"waited {timeout_s} s until {what}"
        time.sleep(0.01)
    return time.monotonic() - began
