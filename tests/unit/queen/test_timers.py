"""Delays and timeouts: in order, and none for a job that is gone."""

import pytest

from formicary.queen.supervisor import timers as timers_module
from formicary.queen.supervisor.timers import Timers, Wake
from tests.unit.queen.conftest import Queen


def wake(queen: Queen, name: str) -> Wake:
    return Wake(queen.shard.jobs.get(name) or queen.job(name=name), 0, 1, 1)  # type: ignore[call-overload]  # an id


def test_what_is_due_is_taken_in_the_order_of_its_time_and_once(queen: Queen) -> None:
    timers = Timers()
    late, early, next_one = wake(queen, "late"), wake(queen, "early"), wake(queen, "next")
    timers.add(30.0, late)
    timers.add(10.0, early)
    timers.add(20.0, next_one)

    assert timers.next_due() == 10.0
    assert timers.take_due(9.9) == []
    assert timers.take_due(20.0) == [early, next_one]
    assert timers.take_due(20.0) == []
    assert timers.next_due() == 30.0


def test_equal_times_are_taken_in_the_order_they_were_set(queen: Queen) -> None:
    timers, items = Timers(), [wake(queen, f"job-{number}") for number in range(5)]
    for item in items:
        timers.add(1.0, item)

    assert timers.take_due(1.0) == items


def test_timers_of_jobs_that_are_gone_neither_fire_nor_wake_anyone(queen: Queen) -> None:
    timers, gone, stays = Timers(), wake(queen, "gone"), wake(queen, "stays")
    timers.add(1.0, gone)
    timers.add(2.0, stays)
    timers.add(3.0, gone)
    gone.live.is_gone = True

    assert timers.next_due() == 2.0
    assert timers.take_due(5.0) == [stays]
    assert timers.next_due() is None


def test_memory_of_gone_jobs_is_given_back_before_their_time(queen: Queen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers_module, "GONE_SLACK", 4)
    timers, items = Timers(), [wake(queen, f"job-{number}") for number in range(6)]
    timers.add(0.5, wake(queen, "first"))
    for item in items:
        timers.add(99.0, item)

    for item in items:
        item.live.is_gone = True
        timers.job_gone()

    assert len(timers._heap) < 4
    assert timers.next_due() == 0.5
