"""Which waiting task is next."""

import pytest

from formicary.queen.registry import Requirement
from formicary.queen.supervisor import ready
from formicary.queen.supervisor.ready import ReadyQueue
from formicary.states.inputs import CancelRequested
from formicary.testing.drill import task
from tests.unit.queen.conftest import DUMMY, Queen


def popped(queue: ReadyQueue) -> list[str]:
    found = []
    while (entry := queue.pop(DUMMY)) is not None:
        found.append(f"{entry[0].id}/{entry[1]}")
    return found


def test_a_higher_priority_comes_first_and_then_the_older(queen: Queen) -> None:
    queen.begin(queen.job(name="old"), queen.job(name="urgent", priority=5), queen.job(name="new"))

    assert popped(queen.engine.ready) == ["urgent/0", "old/0", "new/0"]


def test_requirements_have_queues_of_their_own(queen: Queen) -> None:
    queen.begin(queen.job(task("a"), task("b", method="SHELL")))

    assert set(queen.engine.ready.requirements()) == {DUMMY, Requirement("SHELL")}
    assert popped(queen.engine.ready) == ["job-1/0"]
    assert queen.engine.ready.requirements() == [Requirement("SHELL")]


def test_a_withdrawn_task_is_passed_over(queen: Queen) -> None:
    cancelled, other = queen.job(name="cancelled"), queen.job(name="other")
    queen.begin(cancelled, other)

    queen.engine.step(cancelled, CancelRequested(at=queen.clock.now()))

    assert queen.engine.ready.size() == 2
    assert popped(queen.engine.ready) == ["other/0"]
    assert queen.engine.ready.size() == 0


def test_a_task_that_was_taken_is_not_given_twice(queen: Queen) -> None:
    live = queen.job()
    queen.begin(live)
    queen.ant()
    queen.dispatch()

    queen.engine.ready.add(live, 0)

    assert popped(queen.engine.ready) == []


def test_jobs_that_left_memory_are_let_go_of_though_nobody_asks(queen: Queen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "GONE_SLACK", 3)
    lives = [queen.job(name=f"job-{number}") for number in range(5)]
    queen.begin(*lives, queen.job(name="stays"))

    for live in lives:
        queen.engine.forget(live)
    queen.engine.ready.job_gone()
    queen.engine.ready.job_gone()

    assert queen.engine.ready.size() == 1
    assert popped(queen.engine.ready) == ["stays/0"]


def test_what_waits_is_listed_without_being_taken(queen: Queen) -> None:
    queen.begin(queen.job(name="a"), queen.job(name="b", priority=1))

    assert sorted(live.id for _, (live, _) in queen.engine.ready.heads()) == ["a", "b"]
    assert queen.engine.ready.size() == 2
