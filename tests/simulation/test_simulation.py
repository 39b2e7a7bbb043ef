"""Colonies on virtual time, disturbed by chance: every promise holds in every run, and every run can be had again."""

import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.simulation.ant_bugs import LONGER_LEASE_S
from tests.simulation.scenario import MEMOIZED
from tests.simulation.world import Parts, Report, run

ROOT = Path(__file__).parents[2]
#: Of the batch that runs with every change; more: ``python -m tests.simulation --first N --count M``.
FIRST, COUNT = 1, 500
PROCESSES = 2


def summaries(seeds: range) -> list[str]:
    reports = [run(seed) for seed in seeds]
    return [report.summary() for report in reports if report.violations]


@pytest.mark.timeout(400)
def test_no_promise_is_broken_whatever_goes_wrong() -> None:
    parts = [range(FIRST + number, FIRST + COUNT, PROCESSES) for number in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        broken = [summary for part in pool.map(summaries, parts) for summary in part]

    assert not broken, "\n" + "\n".join(broken)


def test_tasks_that_take_results_of_earlier_jobs_keep_every_promise() -> None:
    reports = [run(seed, Parts(sources=MEMOIZED)) for seed in range(1, 41)]

    assert [report.summary() for report in reports if report.violations] == []
    assert sum(report.counts.get("reuses", 0) > 0 for report in reports) > 20


@pytest.mark.parametrize("seed", [13, 30, 75])
def test_ants_that_are_set_to_a_longer_lease_than_their_queens_keep_every_promise(seed: int) -> None:
    assert run(seed, Parts(ant_lease_s=LONGER_LEASE_S)).violations == ()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_undisturbed_colony_ends_all_its_jobs(seed: int) -> None:
    report = run(seed, is_calm=True)

    assert report.violations == ()
    assert "COMPLETED" in "\n".join(report.lines)


@pytest.mark.parametrize("seed", [4, 21])
def test_a_seed_gives_the_same_run_again(seed: int) -> None:
    first, second = run(seed), run(seed)

    assert first.lines == second.lines
    assert first.digest != run(seed + 1).digest


def test_a_seed_gives_the_same_run_in_another_process_with_other_hashes() -> None:
    outputs = {_run_apart(17, hash_seed) for hash_seed in ("1", "2")}

    assert len(outputs) == 1
    assert run(17).digest in outputs.pop()


def test_a_batch_says_how_many_seeds_a_minute_it_ran() -> None:
    assert re.fullmatch(r"3 seeds in [0-9.]+ s, [1-9][0-9]* a minute, 0 failed\n", _apart("--count", "3"))


def _run_apart(seed: int, hash_seed: str) -> str:
    return _apart("--seed", str(seed), PYTHONHASHSEED=hash_seed)


def _apart(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_run_that_broke_something_says_how_to_see_it_again() -> None:
    report = Report(seed=7, violations=("x",), digest="", lines=(), virtual_s=1.0, callbacks=1)

    assert "python -m tests.simulation --seed 7" in report.summary()
