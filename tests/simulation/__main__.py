"""``python -m tests.simulation --seed N``: one run with all that happened; ``--first N --count M``: many, in short."""

import argparse
import sys
import time

from tests.simulation.world import run


def main() -> int:
    """Runs what the arguments say; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="run this seed and print its trace")
    parser.add_argument("--first", type=int, default=1, help="run seeds from this one on")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--calm", action="store_true", help="disturb nothing")
    parser.add_argument("--log", default="critical", choices=["debug", "info", "warning", "critical"])
    options = parser.parse_args()
    if options.seed is not None:
        report = run(options.seed, is_calm=options.calm, log_level=options.log)
        print("\n".join(report.lines))
        print(report)
        return 1 if report.violations else 0
    began, failed = time.perf_counter(), 0
    for seed in range(options.first, options.first + options.count):
        report = run(seed, is_calm=options.calm, log_level=options.log)
        if report.violations:
            failed += 1
            print(f"seed {seed}: {report.violations[0]} ({len(report.violations)})")
            print(f"  python -m tests.simulation --seed {seed}")
    took = time.perf_counter() - began
    print(f"{options.count} seeds in {took:.1f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
