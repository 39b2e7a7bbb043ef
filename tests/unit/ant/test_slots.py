"""Slots bound what runs, prefetch what waits."""

from typing import Any

import msgspec
import pytest

from executors.dummy import DummyExecutor
from executors.specs import DummySpec
from formicary.ant.assignments import Assignment
from formicary.ant.config import AntConfig
from formicary.ant.slots import Slots
from formicary.errors import InvalidInputError
from formicary.events.orders import Order
from formicary.events.tasks import TaskDispatched
from formicary.ids import Incarnation, JobId


def assignment(number: int) -> Assignment:
    dispatch = TaskDispatched(
        job_id=JobId("job"),
        task_no=number,
        attempt=1,
        shard=0,
        epoch=1,
        number=number,
        incarnation=Incarnation("ant@1"),
        order=msgspec.Raw(b"\xc0"),
    )
    work = Order(job_type="j", task_type="t", method="DUMMY", spec=DummySpec(), timeout_s=1.0)
    return Assignment(dispatch, work, DummyExecutor())


def test_the_first_that_came_runs_first_and_no_more_than_there_are_slots() -> None:
    slots = Slots(2, 2)
    for number in range(4):
        assert slots.has_room
        slots.add(assignment(number))
    assert not slots.has_room
    taken = [slots.take(), slots.take(), slots.take()]
    assert [item.key[1] if item else None for item in taken] == [0, 1, None]
    slots.release()
    following = slots.take()
    assert following is not None
    assert following.key[1] == 2


def test_free_counts_neither_running_nor_waiting() -> None:
    slots = Slots(3, 2)
    slots.add(assignment(1))
    slots.add(assignment(2))
    slots.take()
    assert slots.free == 1
    slots.withdraw(assignment(2).key)
    assert slots.free == 2
    assert slots.withdraw(assignment(2).key) is None


@pytest.mark.parametrize(
    ("config", "in_process", "prefetch"),
    [
        ({"slots": 4}, (), 8),
        ({"slots": 4}, ("PYTHON",), 256),
        ({"slots": 500}, ("PYTHON",), 1000),
        ({"slots": 4, "prefetch": 0}, ("PYTHON",), 0),
    ],
)
def test_prefetch_is_twice_the_slots_and_more_for_cheap_methods(
    config: dict[str, Any], in_process: tuple[str, ...], prefetch: int, tmp_path: Any
) -> None:
    assert AntConfig(id="a", home=tmp_path, **config).prefetch_for(in_process) == prefetch  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"id": "a@b"}, {"id": "../x"}, {"id": ""}, {"slots": 0}, {"lease_s": 0}])
def test_a_setting_that_cannot_work_is_refused_with_a_reason(bad: dict[str, Any], tmp_path: Any) -> None:
    with pytest.raises(InvalidInputError):
        AntConfig(**{"id": "a", "home": tmp_path, **bad})
