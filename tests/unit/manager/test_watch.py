"""Waiting for a job's end."""

import asyncio

from formicary.ids import new_job_id
from formicary.queen.watch import JobWatch


class Row:
    """A job's row; counts how often it was looked at."""

    def __init__(self) -> None:
        self.has_ended = False
        self.look_count = 0

    async def look(self) -> bool:
        self.look_count += 1
        return self.has_ended


async def test_an_ended_job_is_not_waited_for() -> None:
    row = Row()
    row.has_ended = True

    assert await JobWatch().wait(new_job_id(), 60, row.look)
    assert row.look_count == 1


async def test_a_signal_ends_the_wait_before_the_next_look() -> None:
    watch, row, job_id = JobWatch(), Row(), new_job_id()
    waiting = asyncio.create_task(watch.wait(job_id, 60, row.look))
    await asyncio.sleep(0)
    row.has_ended = True

    watch.ended_many([new_job_id(), job_id])

    assert await waiting
    assert row.look_count == 2


async def test_an_end_while_the_row_is_read_is_not_missed() -> None:
    watch, job_id = JobWatch(), new_job_id()
    answers = iter([False, True])

    async def look() -> bool:
        answer = next(answers)
        watch.ended(job_id)
        return answer

    async with asyncio.timeout(0.09):
        assert await watch.wait(job_id, 60, look)


async def test_without_a_signal_the_row_is_looked_at_again() -> None:
    watch, row = JobWatch(), Row()

    assert not await watch.wait(new_job_id(), 0.35, row.look)

    assert row.look_count >= 3


async def test_nothing_is_kept_of_a_wait_that_was_cancelled() -> None:
    watch, row, job_id = JobWatch(), Row(), new_job_id()
    waiting = asyncio.create_task(watch.wait(job_id, 60, row.look))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait({waiting})

    assert watch._signals._waiters == {}
