"""Submissions to a queen that leads, owns all shards and has nothing else to do."""

import asyncio
from typing import Any

import asyncpg

from formicary.errors import FormicaryError
from formicary.model.jobs import JobRequest
from formicary.model.states import JobState

NOTHING = "job_type: nothing\ntasks: [{task_type: only, method: PYTHON, function: 'math:sqrt', args: [4]}]"
LATER = NOTHING + "\npriority: 3"


async def transactions(colony: Any, job_id: str) -> list[tuple[str, int]]:
    """Returns the states that the job's history shows, each with the number of the commit that wrote it, from 0."""
    connection = await asyncpg.connect(colony.running.database_url)
    try:
        rows = await connection.fetch(
            "SELECT state, dense_rank() OVER (ORDER BY xmin::text::bigint) - 1 AS number FROM job_history "
            "WHERE job_id = $1::uuid ORDER BY seq",
            job_id,
        )
    finally:
        await connection.close()
    return [(row["state"], row["number"]) for row in rows]


async def test_a_job_is_inserted_and_started_in_one_commit(colony: Any) -> None:
    await colony.run(LATER.replace("nothing", "warm"))
    await colony.run(LATER)  # its program is compiled from here on

    job = await colony.run(LATER)

    assert await transactions(colony, job.id) == [("PENDING", 0), ("EXECUTING", 0), ("COMPLETED", 1)]


async def test_a_job_that_is_due_later_or_of_a_limited_type_is_only_inserted(colony: Any) -> None:
    limited = NOTHING.replace("nothing", "limited") + "\nmax_concurrency: 1"
    await colony.run(limited)

    job = await colony.run(limited)

    assert [number for state, number in await transactions(colony, job.id) if state == "EXECUTING"] == [1]


async def test_a_used_key_gives_the_first_job_and_a_new_one_starts_at_once(colony: Any) -> None:
    await colony.run(LATER)

    first = await colony.submit(LATER, idempotency_key="submitting-1")
    again = await colony.submit(LATER, idempotency_key="submitting-1")

    assert again == first
    await colony.end(first)
    assert (await transactions(colony, first))[:2] == [("PENDING", 0), ("EXECUTING", 0)]


async def test_a_newer_definition_counts_for_the_next_submission(colony: Any) -> None:
    await colony.run(LATER)

    newer = await colony.run(LATER + "\ndescription: newer")
    later = await colony.run(LATER + "\ndescription: newer")

    assert later.version == newer.version
    assert (await transactions(colony, later.id))[1] == ("EXECUTING", 0)


async def test_many_submissions_side_by_side_all_end(colony: Any) -> None:
    await colony.manager.save_definition(NOTHING)
    requests = [colony.manager.submit(JobRequest(job_type="nothing")) for _ in range(200)]

    submitted = await asyncio.gather(*requests)

    ends = await asyncio.gather(*(colony.end(result.job.id) for result in submitted))
    assert {job.state for job in ends} == {JobState.COMPLETED}
    assert len({job.id for job in ends}) == 200


async def test_whoever_stops_waiting_leaves_a_job_that_runs_or_none(colony: Any) -> None:
    await colony.run(NOTHING)
    submissions = [asyncio.create_task(colony.manager.submit(JobRequest(job_type="nothing"))) for _ in range(40)]
    await asyncio.sleep(0)

    for number, submission in enumerate(submissions):
        if number % 2:
            submission.cancel()
    results = await asyncio.gather(*submissions, return_exceptions=True)

    assert not [result for result in results if isinstance(result, FormicaryError)]
    newest, _ = await colony.manager.jobs(None, "nothing", 60, None)
    ends = [await colony.end(job.id) for job in newest]
    assert {job.state for job in ends} == {JobState.COMPLETED}
