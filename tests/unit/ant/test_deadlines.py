"""Time limits with one timer for all."""

import asyncio
import itertools

import msgspec

from executors.dummy import DummyExecutor
from executors.specs import DummySpec
from formicary.ant.assignments import Assignment
from formicary.ant.deadlines import Deadlines
from formicary.events.orders import Order
from formicary.events.tasks import TaskDispatched
from formicary.ids import Incarnation, JobId

_numbers = itertools.count()


def assignment() -> Assignment:
    number = next(_numbers)
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


async def test_each_expires_once_in_the_order_of_their_limits() -> None:
    expired: asyncio.Queue[Assignment] = asyncio.Queue()
    deadlines = Deadlines(expired.put_nowait)
    late, early, ended = assignment(), assignment(), assignment()
    deadlines.add(late, 0.06)
    deadlines.add(early, 0.01)
    deadlines.add(ended, 0.02)
    deadlines.remove(ended)
    assert [await expired.get(), await expired.get()] == [early, late]
    deadlines.close()
    assert expired.empty()


async def test_one_that_is_added_after_the_timer_fired_expires_too() -> None:
    expired: asyncio.Queue[Assignment] = asyncio.Queue()
    deadlines = Deadlines(expired.put_nowait)
    for _ in range(3):
        one = assignment()
        deadlines.add(one, 0.005)
        assert await expired.get() is one
    deadlines.close()


async def test_after_close_nothing_expires() -> None:
    expired: list[Assignment] = []
    deadlines = Deadlines(expired.append)
    deadlines.add(assignment(), 0.0)
    deadlines.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert expired == []
