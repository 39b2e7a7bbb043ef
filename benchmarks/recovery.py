"""How long work stands still after ``kill -9``: of a queen, of an ant, of an ant with its warden.

Real processes on Redis and a Postgres of their own, with the default lease of a queen (10 s) and a short one of ants:
only the death of an ant together with its warden waits for that.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.report import Figure
from tests.e2e.colony.processes import Colony
from tests.e2e.colony.servers import BrokerServer, PostgresServer
from tests.e2e.colony.stage import MANY, Stage, poll

LEASE_S = 10.0
ANT_LEASE_S = 6.0
#: What an owner adds to an ant's lease before it gives its work to another (``docs/architecture.md``).
MARGIN_S = max(5.0, ANT_LEASE_S / 2)
#: Beyond lease and margin: the sweep's second, the barrier's way, the next ant's start of the task.
ALLOWANCE_S = 3.0
#: An ant's death is noticed by its warden, whatever the lease.
OBITUARY_S = 3.0


async def recovery() -> list[Figure]:
    """Kills, and waits for the first sign that the work goes on elsewhere."""
    return await asyncio.to_thread(_all)


def _all() -> list[Figure]:
    with _stages() as make:
        queen_s = _after_a_queen(make("queen"))
        ant_s = _after_an_ant(make("ant"), lambda colony, name: colony.ants[name].kill())
        both_s = _after_an_ant(make("both"), lambda colony, name: colony.ants[name].kill_with_warden())
    note = f"its lease: {LEASE_S:g} s; until every job of its shards runs on"
    lost = f"its lease {ANT_LEASE_S:g} s, margin {MARGIN_S:g} s"
    lost_s = ANT_LEASE_S + MARGIN_S + ALLOWANCE_S
    return [
        Figure("kill -9 of a queen", queen_s, "s", goal=2 * LEASE_S, is_ceiling=True, note=note),
        Figure("kill -9 of an ant", ant_s, "s", goal=OBITUARY_S, is_ceiling=True, note="noticed by its warden"),
        Figure("kill -9 of an ant and its warden", both_s, "s", goal=lost_s, is_ceiling=True, note=lost),
    ]


@contextmanager
def _stages() -> Iterator[Callable[[str], Stage]]:
    """Yields what makes room for one colony after the other, on shared servers."""
    with tempfile.TemporaryDirectory(prefix="formicary-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        postgres = PostgresServer(folder / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        broker = BrokerServer("redis", folder / "servers")
        stack.callback(broker.remove)
        broker.start()
        with ExitStack() as last:

            def make(stage_name: str) -> Stage:
                last.close()
                stage = Stage(folder / stage_name, broker, postgres)
                last.callback(stage.close)
                return stage

            yield make


def _after_a_queen(stage: Stage) -> float:
    """Returns the longest time that a job of the killed queen stood still."""
    colony = stage.colony(queens=2, ants=2, slots=MANY, lease_s=LEASE_S)
    dies, lives = colony.queens.values()
    poll(lambda: stage.owners() == {"q1": 8, "q2": 8}, "each queen owns its share")
    jobs = stage.submit(lives, "running", *stage.chain(400, 0.1), count=MANY)
    poll(lambda: len(stage.ledger) > 4 * MANY, "the jobs are under way")
    dies.kill()
    begun = time.monotonic()
    poll(lambda: len(stage.ledger) > 8 * MANY, "what is under way has ended")
    marks = {job_id: sum(line.job_id == job_id for line in stage.ledger) for job_id in jobs}
    late = set(jobs)

    def all_run_on() -> bool:
        counts = dict.fromkeys(jobs, 0)
        for line in stage.ledger:
            counts[line.job_id] += 1
        late.difference_update(job_id for job_id in set(late) if counts[job_id] > marks[job_id] + 2)
        return not late

    poll(all_run_on, "every job runs on")
    return time.monotonic() - begun


def _after_an_ant(stage: Stage, kill: Callable[[Colony, str], None]) -> float:
    """Returns the time until another ant runs the task of the killed one."""
    colony = stage.colony(queens=1, ants=2, ant_lease_s=ANT_LEASE_S)
    body = stage.shop.once("work", 0).replace("exit 0", "exec sleep 4")
    job_id = stage.submit(colony.any_queen(), "lone", stage.shop.shell("work", body))[0]
    poll(lambda: stage.lines(job_id, "work", "start"), "the task runs")
    holder = str(stage.rows(f"SELECT incarnation FROM tasks WHERE job_id = '{job_id}'")[0]["incarnation"])
    kill(colony, holder.partition("@")[0])
    return poll(lambda: len(stage.lines(job_id, "work", "start")) > 1, "another ant runs the task")
