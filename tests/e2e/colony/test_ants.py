"""Ants that are stopped, killed and come again: leases, wardens, ids and incarnations."""

import re
import signal
import subprocess
from typing import Any

import pytest

from tests.e2e.colony.processes import Colony, Node
from tests.e2e.colony.stage import Stage, wait_for_end

pytestmark = pytest.mark.timeout(150)

LONG_LEASE_S = 600.0
SHORT_LEASE_S = 2.0


def begun(stage: Stage, colony: Colony, body: str) -> str:
    """Returns a job whose one task runs, once it does."""
    job_id = stage.submit(colony.any_queen(), "lone", stage.shop.shell("work", body))[0]
    colony.until(lambda: stage.lines(job_id, "work", "start"), "the task runs")
    return job_id


def stuck(stage: Stage, seconds: int) -> str:
    """Returns a script whose first attempt sleeps and never ends well."""
    return stage.shop.once("work", 0).replace("exit 0", f"exec sleep {seconds}")


def task_of(job: Any) -> Any:
    return job["tasks"][0]


def assert_done_by_a_later_attempt(stage: Stage, job: Any) -> None:
    """Dispatches that an ant declined count as attempts too, so that the two that ran may have higher numbers."""
    task = task_of(job)
    assert job["state"] == "COMPLETED"
    starts = [line.attempt for line in stage.lines(job["id"], task["task_type"], "start")]
    assert len(starts) == 2
    assert starts[1] == task["attempt"] > starts[0]
    assert [line.attempt for line in stage.lines(job["id"], task["task_type"], "end")] == [task["attempt"]]


def incarnation(stage: Stage, job_id: str) -> str:
    return str(stage.rows(f"SELECT incarnation FROM tasks WHERE job_id = '{job_id}'")[0]["incarnation"])


def has_given_up_work(ant: Node) -> bool:
    """Says whether a lease of the ant ended while it had work: that of an idle one may end on a busy machine."""
    return any(event["unfinished"] for event in ant.events("ant_incarnation_over"))


def test_a_stopped_ant_that_wakes_after_its_lease_commits_nothing_and_its_scripts_are_dead(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=1, ant_lease_s=SHORT_LEASE_S)
    ant = colony.ants["a1"]
    job_id = begun(stage, colony, stuck(stage, 600))
    waiting = stage.submit(colony.any_queen(), "waiting", stage.shop.python("later", 0.0))[0]
    wait_for_end(colony.any_queen(), waiting)
    ant.send(signal.SIGSTOP)
    late = stage.submit(colony.any_queen(), "waiting", stage.shop.python("later", 0.0))[0]
    colony.until(lambda: not stage.is_held(job_id, "work"), "the warden has ended the script")
    ant.send(signal.SIGCONT)
    ended = wait_for_end(colony.any_queen(), job_id)
    assert_done_by_a_later_attempt(stage, ended)
    assert wait_for_end(colony.any_queen(), late)["state"] == "COMPLETED"
    assert len(stage.lines(late, "later", "start")) == 1
    assert not stage.overlaps()
    assert not colony.failures()


def test_an_ant_keeps_its_id_and_incarnations_tell_its_lives_apart(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=1)
    ant = colony.ants["a1"]
    seen = []
    for end in (ant.kill, ant.stop, ant.kill_with_warden):
        job_id = begun(stage, colony, "")
        assert task_of(wait_for_end(colony.any_queen(), job_id))["ant_id"] == "a1"
        seen.append(incarnation(stage, job_id))
        end()
        ant.start()
        colony.until(lambda: ant.is_ready, "the ant is ready")
    assert len(set(seen)) == 3
    assert all(re.fullmatch(r"a1@[0-9a-f]+", name) for name in seen)
    job_id = begun(stage, colony, "")
    wait_for_end(colony.any_queen(), job_id)
    for queen in colony.queens.values():
        colony.until(lambda queen=queen: len(queen.call("GET", "/ants")["items"]) == 1, "one ant is known")  # type: ignore[misc]


def test_work_of_a_killed_ant_goes_on_long_before_its_lease_ends(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=2, ant_lease_s=LONG_LEASE_S)
    job_id = begun(stage, colony, stuck(stage, 600))
    holder = incarnation(stage, job_id).partition("@")[0]
    colony.ants[holder].kill()
    ended = wait_for_end(colony.any_queen(), job_id)
    assert_done_by_a_later_attempt(stage, ended)
    assert task_of(ended)["ant_id"] != holder
    assert not stage.overlaps()


def test_an_ant_that_comes_again_after_its_warden_died_too_ends_and_gives_back_its_former_work(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=1, ant_lease_s=LONG_LEASE_S)
    job_id = begun(stage, colony, stuck(stage, 600))
    ant = colony.ants["a1"]
    ant.kill_with_warden()
    assert stage.is_held(job_id, "work"), "nobody could end the script yet"
    ant.start()
    ended = wait_for_end(colony.any_queen(), job_id)
    assert_done_by_a_later_attempt(stage, ended)
    assert not stage.overlaps()
    assert not colony.failures()


def test_work_of_an_ant_that_died_with_its_warden_goes_on_elsewhere_once_its_lease_is_over(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=2, ant_lease_s=SHORT_LEASE_S)
    job_id = begun(stage, colony, stuck(stage, 2))
    holder = incarnation(stage, job_id).partition("@")[0]
    colony.ants[holder].kill_with_warden()
    ended = wait_for_end(colony.any_queen(), job_id)
    assert_done_by_a_later_attempt(stage, ended)
    assert task_of(ended)["ant_id"] != holder
    assert not stage.overlaps()


def test_a_second_ant_of_an_id_on_another_machine_is_refused_and_told_who_holds_it(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=1)
    second = colony.add_ant("a1", "elsewhere")
    second.start()
    assert second.wait() != 0
    process = colony.ants["a1"].process
    assert isinstance(process, subprocess.Popen)
    assert re.search(rf"ant id a1 is held by [^ ]+:{process.pid};", second.log.read_text())
    job_id = begun(stage, colony, "")
    assert wait_for_end(colony.any_queen(), job_id)["state"] == "COMPLETED"


def test_a_function_that_outlasts_its_ants_lease_never_runs_beside_its_next_attempt(stage: Stage) -> None:
    colony = stage.colony(queens=1, ants=2, ant_lease_s=SHORT_LEASE_S)
    queen = colony.queens["q1"]
    job_id = stage.submit(queen, "lone", stage.shop.python("work", 8.0))[0]
    colony.until(lambda: stage.lines(job_id, "work", "start"), "the function runs")
    queen.send(signal.SIGSTOP)
    colony.until(lambda: any(map(has_given_up_work, colony.ants.values())), "the lease is over")
    queen.send(signal.SIGCONT)
    assert wait_for_end(queen, job_id)["state"] == "COMPLETED"
    assert len(stage.lines(job_id, "work", "start")) > 1
    assert not stage.overlaps()
