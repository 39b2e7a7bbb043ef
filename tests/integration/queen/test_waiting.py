"""Waiting for the end of a job: what the commit of the end says is what the rows say."""

import asyncio
from typing import Any

import pytest

TASK = "method: PYTHON, function: 'math:sqrt'"
ENDS = {
    "completed": f"  - {{task_type: a, {TASK}, args: [4], on_completed: b}}\n  - {{task_type: b, {TASK}, args: [9]}}",
    "failed": f"  - {{task_type: a, {TASK}, args: [x], on_completed: b}}\n  - {{task_type: b, {TASK}, args: [9]}}",
    "a branch that is not taken": (
        f"  - {{task_type: a, {TASK}, args: [4], on_completed: b, on_failed: c}}\n"
        f"  - {{task_type: b, {TASK}, args: [9]}}\n  - {{task_type: c, {TASK}, args: [9]}}"
    ),
    "a retry": f"  - {{task_type: a, {TASK}, args: [x], retry: 1, delay_between_retries: 100ms}}",
    "excepted": f"  - {{task_type: a, {TASK}, args: [4], except: 'true'}}",
    "outputs and artifacts": (
        "  - task_type: a\n    method: SHELL\n"
        "    script: ['echo hi > $FORMICARY_RESULT_DIR/f', 'echo k=1 > $FORMICARY_OUTPUT']"
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_whoever_waits_sees_the_end_as_it_is_stored(colony: Any, name: str) -> None:
    source = f"job_type: ends\nlabels: {{team: a}}\ntasks:\n{ENDS[name]}\n"

    job_id = await colony.submit(source, params={"n": [1, None]}, priority=3)
    waiting = asyncio.create_task(colony.manager.wait_for_end(job_id, 60.0))
    told = await waiting

    assert told == await colony.manager.job(job_id)


async def test_a_skipped_job_is_told_as_it_is_stored(colony: Any) -> None:
    job_id = await colony.submit(f"job_type: skips\nskip_if: 'true'\ntasks:\n{ENDS['completed']}\n")

    told = await colony.manager.wait_for_end(job_id, 60.0)

    assert told == await colony.manager.job(job_id)
