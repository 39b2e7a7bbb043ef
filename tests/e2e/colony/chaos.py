"""Kills, stops and restarts the parts of a running colony, after a script that its seed determines.

    python -m tests.e2e.colony.chaos --broker redis --seconds 300 --seed 7 --keep FOLDER

runs jobs meanwhile, judges by ``invariants`` when all have ended, and exits 1 where one is broken. The logs of all
processes and the data of the servers stay in FOLDER; where none is named they stay only if something went wrong.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.e2e.colony.processes import Colony, Node
from tests.e2e.colony.servers import BrokerServer, PostgresServer

#: Short lives, so that a stop of some seconds outlasts them; an ant's is counted lost 5 s after its lease.
LEASE_S = 2.0
ANT_LEASE_S = 3.0
#: Between two blows, in seconds.
GAP_S = (0.8, 1.8)
#: What a process may take to serve again before it is hit again, in seconds.
START_S = 2.0
#: What is done, and how long it lasts until it is undone, in seconds.
BLOWS = {
    "kill queen": (0.1, 3.0),
    "stop queen": (LEASE_S * 1.5, LEASE_S * 2.5),
    "drain queen": (0.1, 1.0),
    "kill ant": (0.1, 2.0),
    "kill ant and warden": (0.1, 2.0),
    "stop ant": (ANT_LEASE_S * 1.5, ANT_LEASE_S * 2.5),
    "drain ant": (0.1, 1.0),
    "kill broker": (0.1, 1.5),
    "kill postgres": (0.0, 2.0),
}


class Blow(NamedTuple):
    """One thing that is done to the colony; ``target`` is a node or a server."""

    at_s: float
    kind: str
    target: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:.1f} {self.kind} {self.target} for {self.for_s:.1f} s"


def script(seed: int, seconds: float, queens: Sequence[str], ants: Sequence[str]) -> list[Blow]:
    """Returns the blows of ``seconds``: every kind comes once before any comes again, and hits what is up."""
    dice = random.Random(seed)
    victims = {"queen": queens, "ant": ants}
    blows: list[Blow] = []
    back_at: dict[str, float] = {}
    deck: list[str] = []
    at_s = dice.uniform(*GAP_S)
    while at_s < seconds:
        deck = deck or dice.sample(list(BLOWS), len(BLOWS))
        targets = {
            kind: [name for name in victims.get(word, (word,)) if back_at.get(name, 0.0) < at_s]
            for kind in deck
            for word in [kind.split()[1]]
        }
        kind = next((kind for kind in deck if targets[kind]), None)
        if kind is not None:
            deck.remove(kind)
            blow = Blow(at_s, kind, dice.choice(targets[kind]), dice.uniform(*BLOWS[kind]))
            back_at[blow.target] = at_s + blow.for_s + START_S
            blows.append(blow)
        at_s += dice.uniform(*GAP_S)
    return blows


def _lease_is_over(node: Node) -> bool:
    """Says whether an ant's lease lapsed in its last life: only then may its warden end it, if a function runs on."""
    lapses, starts = node.events("ant_lease_lapsed"), node.events("ant_ready")
    return bool(lapses and starts) and bool(lapses[-1]["timestamp"] > starts[-1]["timestamp"])


class Chaos:
    """Carries a script out. A part that is down already is spared."""

    def __init__(self, colony: Colony, broker: BrokerServer, postgres: PostgresServer, blows: Sequence[Blow]) -> None:
        self._colony = colony
        self._broker = broker
        self._postgres = postgres
        self._blows = blows
        self._down: dict[str, threading.Thread] = {}
        self._errors: list[str] = []
        self._thread = threading.Thread(target=self._run, name="chaos")
        self.dealt: list[Blow] = []

    def __enter__(self) -> None:
        self._colony.is_excused = self._is_a_server_away
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        for thread in self._down.values():
            thread.join()
        assert not self._errors, f"{self._errors}\n{self._colony.tails()}"

    def _run(self) -> None:
        begun = time.monotonic()
        for blow in self._blows:
            time.sleep(max(0.0, begun + blow.at_s - time.monotonic()))
            if blow.target not in self._down or not self._down[blow.target].is_alive():
                self._down[blow.target] = threading.Thread(target=self._deal, args=(blow,))
                self._down[blow.target].start()

    def _is_a_server_away(self) -> bool:
        """Says whether a server was hit and does not serve yet: on a busy machine Pulsar takes minutes to start."""
        return any(name in self._down and self._down[name].is_alive() for name in ("broker", "postgres"))

    def _deal(self, blow: Blow) -> None:
        self.dealt.append(blow)
        action, _, word = blow.kind.partition(" ")
        deals: dict[str, Callable[[Blow], None]] = {"broker": self._kill_broker, "postgres": self._kill_postgres}
        try:
            deals.get(word, getattr(self, f"_{action}"))(blow)
        except Exception as error:  # noqa: BLE001 - told by whoever leaves the context
            self._errors.append(f"{blow}: {error!r}")

    def _kill_broker(self, blow: Blow) -> None:
        self._broker.kill()
        time.sleep(blow.for_s)
        self._broker.start()

    def _kill_postgres(self, blow: Blow) -> None:
        self._postgres.kill()
        if blow.for_s > 1.0:
            self._postgres.shut_down()
            time.sleep(blow.for_s - 1.0)
            self._postgres.bring_back()

    def _kill(self, blow: Blow) -> None:
        node = self._colony.nodes[blow.target]
        if blow.kind == "kill ant and warden":
            node.kill_with_warden()
        else:
            node.kill()
        self._come_again(blow)

    def _stop(self, blow: Blow) -> None:
        """Stops the process alone: what an ant started runs on."""
        node = self._colony.nodes[blow.target]
        node.send(signal.SIGSTOP)
        time.sleep(blow.for_s)
        node.send(signal.SIGCONT)
        if node.has_been_killed():
            node.start()
        self._until_ready(blow.target)

    def _drain(self, blow: Blow) -> None:
        node = self._colony.nodes[blow.target]
        node.begin_stop()
        self._colony.until(lambda: not node.is_alive, f"{blow.target} has ended")
        code = node.wait()
        if code != 0 and not (code == -signal.SIGKILL and _lease_is_over(node)):
            self._errors.append(f"{blow.target} drained and exited {code}")
        self._come_again(blow)

    def _come_again(self, blow: Blow) -> None:
        time.sleep(blow.for_s)
        self._colony.nodes[blow.target].start()
        self._until_ready(blow.target)

    def _until_ready(self, name: str) -> None:
        node = self._colony.nodes[name]
        self._colony.until(lambda: node.is_ready, f"{name} is ready")


def main() -> None:
    """Runs one trial from the command line; exits 1 where it fails."""
    from tests.e2e.colony.trial import Trial

    parser = argparse.ArgumentParser(prog="python -m tests.e2e.colony.chaos", description=__doc__)
    parser.add_argument("--broker", choices=("redis", "kafka", "pulsar"), default="redis")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder, for logs and data")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        parser.error(f"--keep: {options.keep} is there already; name a new folder")
    with _place(options.keep) as folder:
        with Trial.on(options.broker, folder) as trial:
            wrong = trial.disturbed(options.seed, options.seconds, jobs_count=int(8 * options.seconds))
            sys.stdout.write(f"{trial.report(wrong)}\n{len(wrong)} invariants broken\n")
        if wrong:
            sys.exit(1)


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    """Yields a folder, which stays if it was named or the run fails, and says so then."""
    folder = keep.resolve() if keep else Path(tempfile.mkdtemp(prefix="formicary-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # as root, Postgres runs as somebody else
    is_kept = True
    try:
        yield folder
        is_kept = keep is not None
    finally:
        if is_kept:
            sys.stdout.write(f"The logs of all processes and the data of the servers are in {folder}\n")
        else:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
