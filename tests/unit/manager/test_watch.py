"""Waiting for a job's end."""

import asyncio
from datetime import UTC, datetime

import pytest

from formicary.ids import JobId, new_job_id
from formicary.model.jobs import JobView
from formicary.model.states import JobState
from formicary.queen import watch as watch_module
from formicary.queen.watch import JobWatch
from formicary.store.jobs import StoredJob

ENDED = StoredJob(
    view=JobView(id=new_job_id(), job_type="t", version=1, state=JobState.COMPLETED, created_at=datetime.now(UTC)),
    definition_id="d",
    shard=0,
    rendered_source=None,
)


class Row:
    """A job's row; counts how often it was looked at."""

    def __init__(self) -> None:
        self.has_ended = False
        self.look_count = 0

    async def look(self) -> StoredJob | None:
        self.look_count += 1
        return ENDED if self.has_ended else None


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


async def test_a_signal_that_says_how_the_job_ended_needs_no_other_look() -> None:
    watch, row, job_id, asked = JobWatch(), Row(), new_job_id(), []
    waiting = asyncio.create_task(watch.wait(job_id, 60, row.look))
    await asyncio.sleep(0)

    def news(ended: JobId) -> StoredJob:
        asked.append(ended)
        return ENDED

    watch.ended_many([new_job_id(), job_id], news)

    assert await waiting is ENDED
    assert (row.look_count, asked) == (1, [job_id])


async def test_an_end_while_the_row_is_read_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_FIRST_LOOK_S", 60.0)
    watch, job_id = JobWatch(), new_job_id()
    answers = iter([None, ENDED])

    async def look() -> StoredJob | None:
        answer = next(answers)
        watch.ended(job_id)
        return answer

    async with asyncio.timeout(40):
        assert await watch.wait(job_id, 60, look)


async def test_without_a_signal_the_row_is_looked_at_again() -> None:
    watch, row = JobWatch(), Row()

    waiting = asyncio.create_task(watch.wait(new_job_id(), 60, row.look))
    async with asyncio.timeout(40):
        while row.look_count < 3:  # noqa: ASYNC110 - counts what others do
            await asyncio.sleep(0.01)
    row.has_ended = True

    assert await waiting


async def test_nothing_is_kept_of_a_wait_that_was_cancelled() -> None:
    watch, row, job_id = JobWatch(), Row(), new_job_id()
    waiting = asyncio.create_task(watch.wait(job_id, 60, row.look))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait({waiting})

    assert watch._signals._waiters == {}
