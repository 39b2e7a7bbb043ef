"""Several queens: shares, hand-over, fencing, slots, and any queen for any job."""

import signal
from collections import Counter
from itertools import pairwise

import pytest

from tests.e2e.colony.stage import MANY, Stage, at, wait_for_end

pytestmark = pytest.mark.timeout(150)

#: A lease that does not lapse within a test: what goes on before was handed over.
LONG_LEASE_S = 60.0
SHORT_LEASE_S = 2.0


def test_a_queen_that_joins_takes_its_share_without_a_pause_in_the_jobs(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=2, lease_s=9.0)
    first = colony.queens["q1"]
    jobs = stage.submit(first, "running", *stage.chain(30, 0.1), count=MANY)
    colony.until(lambda: len(stage.ledger) > 4 * MANY, "the jobs are under way")
    second = colony.add_queen("q2")
    second.start()
    colony.until(lambda: stage.owners() == {"q1": 8, "q2": 8}, "each owns its share")
    ended = [wait_for_end(second, job_id) for job_id in jobs]
    assert {job["state"] for job in ended} == {"COMPLETED"}
    assert not stage.attempts_twice()
    for job in ended:
        ends = sorted(at(task["finished_at"]) for task in job["tasks"])
        pause_s = max(later - earlier for earlier, later in pairwise(ends))
        assert pause_s < 9.0 / 2, f"{job['id']} stood still for {pause_s:.1f} s"


def test_a_queen_that_drains_hands_its_shards_over_at_once(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=2, lease_s=LONG_LEASE_S)
    leaves, stays = colony.queens.values()
    colony.until(lambda: stage.owners() == {"q1": 8, "q2": 8}, "each owns its share")
    jobs = stage.submit(stays, "running", *stage.chain(8, 0.2), count=MANY)
    colony.until(lambda: len(stage.ledger) > MANY, "the jobs are under way")
    assert leaves.stop() == 0
    taken_s = colony.until(lambda: stage.owners() == {"q2": 16}, "the other owns everything")
    assert taken_s < LONG_LEASE_S / 6
    assert {wait_for_end(stays, job_id)["state"] for job_id in jobs} == {"COMPLETED"}
    assert not stage.attempts_twice()


def test_any_queen_answers_for_any_job(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=1, slots=MANY)
    one, other = colony.queens.values()
    colony.until(lambda: stage.owners() == {"q1": 8, "q2": 8}, "each owns its share")
    short = stage.submit(one, "short", stage.shop.shell("say", "echo heard"), count=MANY)
    for job_id in short:
        assert wait_for_end(other, job_id)["state"] == "COMPLETED"
        assert other.call("GET", f"/jobs/{job_id}") == one.call("GET", f"/jobs/{job_id}")
        assert [line["text"] for line in other.lines(f"/jobs/{job_id}/logs?follow=1")] == ["heard"]
    endless = stage.submit(one, "endless", stage.shop.shell("stay", "sleep 600"), count=MANY)
    colony.until(lambda: all(stage.lines(job_id, "stay", "start") for job_id in endless), "all of them run")
    for job_id in endless:
        other.call("POST", f"/jobs/{job_id}/cancel")
    assert {wait_for_end(one, job_id)["state"] for job_id in endless} == {"CANCELLED"}


def test_a_queen_that_wakes_after_its_lease_starts_nothing_and_commits_nothing(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=2, slots=MANY, lease_s=SHORT_LEASE_S)
    sleeps, wakes = colony.queens.values()
    colony.until(lambda: stage.owners() == {"q1": 8, "q2": 8}, "each owns its share")
    tasks = [stage.shop.shell("first", "sleep 1"), stage.shop.shell("second", "sleep 0.1", "first")]
    jobs = stage.submit(wakes, "slow", *tasks, count=MANY)
    colony.until(lambda: all(stage.lines(job_id, "first", "start") for job_id in jobs), "every first task was begun")
    sleeps.send(signal.SIGSTOP)
    before = {job_id: wait_for_end(wakes, job_id) for job_id in jobs}
    assert {job["state"] for job in before.values()} == {"COMPLETED"}
    lines = len(stage.ledger)
    sleeps.send(signal.SIGCONT)
    colony.until(lambda: stage.owners() == {"q1": 8, "q2": 8}, "it has its share again")
    assert {wait_for_end(wakes, job_id)["state"] for job_id in stage.submit(sleeps, "slow", *tasks, count=4)} == {
        "COMPLETED"
    }
    assert {job_id: sleeps.call("GET", f"/jobs/{job_id}") for job_id in jobs} == before
    assert len(stage.ledger) == lines + 4 * 4
    assert not stage.attempts_twice()
    assert not colony.failures()


def test_slots_are_never_exceeded_with_several_queens(stage: Stage) -> None:
    colony = stage.colony(queens=3, ants=2, slots=2)
    queens = list(colony.queens.values())
    colony.until(lambda: sorted(stage.owners().values()) == [5, 5, 6], "each owns its share")
    brief = [stage.shop.shell(f"b{number}", "sleep 0.05") for number in range(4)]
    jobs = [job_id for queen in queens for job_id in stage.submit(queen, "brief", *brief, count=8)]
    ended = [wait_for_end(queens[0], job_id) for job_id in jobs]
    assert {job["state"] for job in ended} == {"COMPLETED"}
    ant_of = {(job["id"], task["task_type"]): task["ant_id"] for job in ended for task in job["tasks"]}
    assert not stage.attempts_twice()
    running: Counter[str] = Counter()
    for line in stage.ledger:
        ant = ant_of[line.job_id, line.task_type]
        running[ant] += 1 if line.word == "start" else -1
        assert running[ant] <= colony.slots, f"{ant} ran {running[ant]} at once"
    assert set(ant_of.values()) == {"a1", "a2"}
