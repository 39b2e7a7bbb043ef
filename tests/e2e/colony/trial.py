"""One colony on its servers, the jobs it is given, and the judgement: what the tests and ``make chaos`` share."""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.colony import invariants, jobs
from tests.e2e.colony.chaos import ANT_LEASE_S, LEASE_S, Blow, Chaos, script
from tests.e2e.colony.leftovers import POSITIONS, leftovers
from tests.e2e.colony.processes import Colony
from tests.e2e.colony.servers import BrokerServer, PostgresServer
from tests.e2e.colony.workload import Workload

#: From the last submission to the last end, in seconds; a lost ant is given up after 8.
PATIENCE_S = 90.0


class Trial:
    """Runs mixed jobs on a colony of two queens and three ants; each run returns the invariants that it broke."""

    def __init__(self, folder: Path, broker: BrokerServer, postgres: PostgresServer) -> None:
        self._folder = folder
        self._broker = broker
        self._postgres = postgres
        self._database_url = postgres.new_database(f"trial-{broker.name}")
        self._runs = 0
        self.told: list[str] = []
        self.colony = Colony(
            folder,
            database_url=self._database_url,
            broker_url=broker.url,
            lease_s=LEASE_S,
            ant_lease_s=ANT_LEASE_S,
        )

    @classmethod
    @contextmanager
    def on(cls, broker_name: str, folder: Path) -> Iterator["Trial"]:
        """Yields a running colony on fresh servers; ends all of it, and leaves its logs and the servers' data."""
        with ExitStack() as stack:
            postgres = PostgresServer(folder / "postgres")
            stack.callback(postgres.stop)
            postgres.start()
            broker = BrokerServer(broker_name, folder / "servers")
            stack.callback(broker.stop)
            broker.start()
            trial = cls(folder, broker, postgres)
            stack.callback(trial.colony.end)
            trial.colony.start()
            yield trial
            codes = trial.colony.stop()
            assert not any(codes.values()), f"not everything drains and exits 0: {codes}\n{trial.colony.tails()}"

    def undisturbed(self, jobs_count: int, over_s: float) -> list[str]:
        """Runs jobs in peace."""
        work, shop = self._work(jobs_count, over_s, seed=0)
        with work.watching(random.Random(0)):
            work.submit_all()
            work.wait(PATIENCE_S)
        return self._judge(work, shop, [])

    def disturbed(self, seed: int, seconds: float, jobs_count: int) -> list[str]:
        """Runs jobs while chaos reigns for ``seconds``."""
        work, shop = self._work(jobs_count, seconds * 0.9, seed)
        blows = script(seed, seconds, [*self.colony.queens], [*self.colony.ants])
        chaos = Chaos(self.colony, self._broker, self._postgres, blows)
        begun = time.monotonic()
        with work.watching(random.Random(seed)):
            with chaos:
                work.submit_all()
            self.told += map(str, chaos.dealt)
            self.told.append(f"calm after {time.monotonic() - begun:.1f} s")
            work.wait(PATIENCE_S)
        self.told.append(f"all over after {time.monotonic() - begun:.1f} s")
        return self._judge(work, shop, chaos.dealt)

    def report(self, wrong: list[str]) -> str:
        """Returns what happened, what was wrong and, if anything was, the ends of all logs."""
        return "\n".join([*self.told, *wrong, *([self.colony.tails()] if wrong else [])])

    def _work(self, count: int, over_s: float, seed: int) -> tuple[Workload, jobs.Workshop]:
        self._runs += 1
        shop = jobs.Workshop(self._folder / f"run-{self._runs}")
        mixed = jobs.mix(jobs.kinds(shop), count, random.Random(seed))
        work = Workload(self.colony, mixed, over_s, shop.ledger)
        work.upload()
        return work, shop

    def _judge(self, work: Workload, shop: jobs.Workshop, blows: Sequence[Blow]) -> list[str]:
        found = invariants.Findings(
            work.accepted,
            work.ends,
            work.successes,
            invariants.read_ledger(shop.ledger),
            self._rows(invariants.ENDS),
            self._rows(invariants.REPEATED),
            self._rows(invariants.LOSSES),
            {name: self._lives_over(name, blows) for name in self.colony.ants},
        )
        starts = sum(line.word == "start" for line in found.ledger)
        given_up = sum(row["is_last"] for row in found.loss_rows)
        self.told.append(
            f"{len(work.accepted)} jobs, {starts} attempts, {len(work.successes)} successes seen early, "
            f"{given_up} tasks given up with their ants"
        )
        wrong = invariants.violations(found)
        wrong += leftovers(self._broker.url, lambda: self._rows(POSITIONS))
        return wrong + self.colony.failures()

    def _lives_over(self, name: str, blows: Sequence[Blow]) -> int:
        """Returns how many lives of an ant can have ended, at most, and none where nothing was done.

        A blow at the ant ends one. So does each lapse of a lease, which the ant tells: a blow at a queen or a server
        causes no more than one. What was sent to the life that goes on may have been lost on the way.
        """
        if not blows:
            return 0
        lapses = len(self.colony.ants[name].events("ant_incarnation_over"))
        return sum(blow.target == name for blow in blows) + min(lapses, len(blows)) + 1

    def _rows(self, sql: str) -> list[object]:
        return self._postgres.fetch(self._database_url, sql)
