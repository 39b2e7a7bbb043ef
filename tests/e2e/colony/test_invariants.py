"""The judge of a colony can fail: what a lost ant excuses, and what it does not."""

from typing import Any

import pytest

from tests.e2e.colony.invariants import Findings, Line, violations
from tests.e2e.colony.jobs import Kind
from tests.e2e.colony.workload import Accepted

CHAIN = Kind(1, "chain", (), ran=frozenset({"a", "b"}))
CLEANED = Kind(1, "cleaned", (), "FAILED", "ERR_EXIT_CODE", frozenset({"b"}))
DONE, LOST, SKIPPED, EXITED = (
    ("COMPLETED", None),
    ("FAILED", "ERR_ANT_LOST"),
    ("SKIPPED", None),
    ("FAILED", "ERR_EXIT_CODE"),
)
LIVES = {"a1": 2, "a2": 1}
#: Three ants, as a task that is given up must have lost.
THREE = ("a1@1", "a1@2", "a2@1")


def losses(*lives: str, job_attempt: int = 1) -> list[dict[str, Any]]:
    """Returns the rows of a task that lost these lives of ants, and was given up then."""
    row = {"job_id": "j", "task_no": 0, "job_attempt": job_attempt, "is_last": False}
    rows = [{**row, "incarnation": life} for life in lives]
    return [*rows[:-1], *({**last, "is_last": True} for last in rows[-1:])]


def judged(
    kind: Kind, end: tuple[str, str | None], rows: list[dict[str, Any]], job_attempt: int = 1, **tasks: Any
) -> list[str]:
    """Returns what is wrong with one job, whose tasks ended as said; what is COMPLETED ran."""
    views = [
        {"task_type": name, "state": state, "error_code": code, "attempt": 4, "exit_code": None}
        for name, (state, code) in tasks.items()
    ]
    job = {"state": end[0], "error_code": end[1], "error_message": "", "attempt": job_attempt, "tasks": views}
    lines = [
        Line(number, "j", view["task_type"], 4, word)
        for number, word in enumerate(("start", "end"))
        for view in views
        if view["state"] == "COMPLETED"
    ]
    ended = [{"job_id": "j", "attempt": job_attempt, "times": 1}]
    return violations(Findings([Accepted("j", kind)], {"j": job}, [], lines, ended, [], rows, LIVES))


def test_a_task_that_lost_three_ants_may_fail_its_job() -> None:
    assert judged(CHAIN, LOST, losses(*THREE), a=LOST, b=SKIPPED) == []
    assert judged(CHAIN, LOST, losses(*THREE), a=DONE, b=LOST) == []


def test_a_task_that_was_given_up_too_early_is_found() -> None:
    (wrong,) = judged(CHAIN, LOST, losses("a1@1", "a2@1"), a=LOST, b=SKIPPED)

    assert "given up after 2 ants" in wrong


def test_more_lost_lives_of_an_ant_than_can_have_ended_are_found() -> None:
    wrong = judged(CHAIN, LOST, losses("a1@1", "a2@1", "a2@2"), a=LOST, b=SKIPPED)

    assert wrong == ["2 lives of a2 were lost, of 1 that can have ended"]


def test_a_job_that_failed_so_without_a_task_that_did_is_found() -> None:
    assert len(judged(CHAIN, LOST, [], a=DONE, b=SKIPPED)) == 2


@pytest.mark.parametrize("state", [EXITED, ("EXECUTING", None)])
def test_what_else_went_wrong_in_a_job_that_lost_ants_is_found(state: tuple[str, str | None]) -> None:
    assert judged(CHAIN, LOST, losses(*THREE), a=LOST, b=state)


def test_a_task_that_always_runs_must_have_run_in_a_job_that_lost_ants() -> None:
    assert judged(CLEANED, LOST, losses(*THREE), a=LOST, b=DONE) == []
    assert judged(CLEANED, LOST, losses(*THREE), a=LOST, b=SKIPPED) == ["cleaned j: b is SKIPPED None"]


def test_a_restart_of_a_job_that_lost_ants_used_up_is_not_missed() -> None:
    assert judged(CHAIN, EXITED, losses(*THREE), job_attempt=2, a=DONE, b=EXITED) == []
    assert judged(CHAIN, EXITED, [], job_attempt=2, a=DONE, b=EXITED)
