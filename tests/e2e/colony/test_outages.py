"""A broker or a database that goes away: waited out, and nothing half done."""

import urllib.error
from typing import Any

import pytest

from tests.e2e.colony.processes import Queen
from tests.e2e.colony.stage import Stage, wait_for_end

pytestmark = pytest.mark.timeout(150)


def answered(queen: Queen, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    """Returns the status, and the body or, of an error, its headers."""
    headers = {"Idempotency-Key": key} if key else {}
    try:
        return 200, queen.call(method, path, body, headers, timeout_s=60.0)
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_submissions_without_a_database_are_told_to_come_again_and_none_is_half_done(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=2, lease_s=2.0)
    queens = list(colony.queens.values())
    running = stage.submit(queens[0], "running", *stage.chain(6, 0.3), count=8)
    stage.postgres.shut_down()
    try:
        for number, queen in enumerate(queens):
            status, headers = answered(queen, "POST", "/jobs", {"job_type": "running"}, f"away-{number}")
            assert status == 503
            assert int(headers["Retry-After"]) >= 1
            assert answered(queen, "GET", f"/jobs/{running[0]}")[0] == 503
            assert answered(queen, "POST", f"/jobs/{running[0]}/cancel")[0] == 503
            assert answered(queen, "POST", "/definitions", "job_type: new\ntasks: []")[0] in {422, 503}
    finally:
        stage.postgres.bring_back()
    late = [
        colony.ask("POST", "/jobs", {"job_type": "running"}, {"Idempotency-Key": f"away-{number}"})["id"]
        for number in range(2)
    ]
    assert {wait_for_end(queens[1], job_id)["state"] for job_id in [*running, *late]} == {"COMPLETED"}
    assert len(stage.rows("SELECT id FROM jobs")) == len(running) + len(late)
    assert not stage.attempts_twice()
    assert not colony.failures()


def test_jobs_wait_for_a_broker_that_is_away_and_end_when_it_is_back(stage: Stage) -> None:
    colony = stage.colony(queens=2, ants=2)
    queens = list(colony.queens.values())
    running = stage.submit(queens[0], "running", *stage.chain(6, 0.3), count=8)
    colony.until(lambda: len(stage.ledger) > 8, "the jobs are under way")
    stage.broker.kill()
    try:
        answers = [
            answered(queen, "POST", "/jobs", {"job_type": "running"}, f"away-{number}")
            for number, queen in enumerate(queens)
        ]
        for status, told in answers:
            assert status == 200 or (status == 503 and int(told["Retry-After"]) >= 1)
    finally:
        stage.broker.start()
    late = [
        colony.ask("POST", "/jobs", {"job_type": "running"}, {"Idempotency-Key": f"away-{number}"})["id"]
        for number in range(2)
    ]
    assert {wait_for_end(queens[1], job_id)["state"] for job_id in [*running, *late]} == {"COMPLETED"}
    assert len(stage.rows("SELECT id FROM jobs")) == len(running) + len(late)
    assert not stage.attempts_twice()
    assert not colony.failures()


def test_queens_and_ants_that_start_before_their_servers_wait_for_them(stage: Stage) -> None:
    stage.broker.kill()
    stage.postgres.shut_down()
    try:
        colony = stage.unstarted(queens=1, ants=1)
        for node in colony.nodes.values():
            node.start()
        for node in colony.nodes.values():
            colony.until(lambda node=node: "_away" in node.tail(), f"{node.name} says what it waits for")  # type: ignore[misc]
    finally:
        stage.postgres.bring_back()
        stage.broker.start()
    for node in colony.nodes.values():
        colony.until(lambda node=node: node.is_ready, f"{node.name} is ready")  # type: ignore[misc]
    job_id = stage.submit(colony.any_queen(), "late", *stage.chain(1, 0.0))[0]
    assert wait_for_end(colony.any_queen(), job_id)["state"] == "COMPLETED"
    assert not colony.failures()
