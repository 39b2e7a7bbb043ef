"""``python -m tests.simulation --seed N``: one run with all that happened; ``--first N --count M``: many, in short."""

import argparse
import sys
import time

from tests.simulation.bugs import BUGS
from tests.simulation.world import Parts, run


def main() -> int:
    """Runs what the arguments say; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="run this seed and print its trace")
    parser.add_argument("--first", type=int, default=1, help="run seeds from this one on")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--bug", choices=sorted(BUGS), metavar="NAME", help="plant a bug: " + "; ".join(sorted(BUGS)))
    parser.add_argument("--calm", action="store_true", help="disturb nothing")
    parser.add_argument("--log", default="critical", choices=["debug", "info", "warning", "critical"])
    options = parser.parse_args()
    parts = BUGS[options.bug].parts if options.bug else Parts()
    if options.seed is None:
        return _run_many(options, parts)
    report = run(options.seed, parts, is_calm=options.calm, log_level=options.log)
    say("\n".join(report.lines))
    say(str(report))
    return 1 if report.violations else 0


def _run_many(options: argparse.Namespace, parts: Parts) -> int:
    began, failed = time.perf_counter(), 0
    for seed in range(options.first, options.first + options.count):
        report = run(seed, parts, is_calm=options.calm, log_level=options.log)
        if report.violations:
            failed += 1
            say(report.summary())
    seconds = time.perf_counter() - began
    say(f"{options.count} seeds in {seconds:.1f} s, {60 * options.count / seconds:.0f} a minute, {failed} failed")
    return 1 if failed else 0


def say(text: str) -> None:
    """Writes a line."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
