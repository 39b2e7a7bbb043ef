"""Jobs through every layer: YAML, API's manager, scheduler, supervisor, bus, ant, executors, store."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from formicary.errors import ConflictError
from formicary.model.jobs import JobView
from formicary.model.states import JobState
from formicary.queen.manager.commands import RestartRequest

States = Callable[[JobView], dict[str, str]]


async def test_a_job_of_shell_tasks_completes_with_outputs_and_logs(colony: Any, states: States) -> None:
    job = await colony.run(
        """
job_type: two-steps
tasks:
  - task_type: count
    method: SHELL
    script: ["echo counting", "echo '::set-output name=rows::3'"]
    on_completed: tell
  - task_type: tell
    method: SHELL
    script: ["test {{ tasks.count.outputs.rows }} = 3"]
"""
    )
    assert states(job) == {"count": "COMPLETED", "tell": "COMPLETED"}, job
    assert job.tasks is not None
    assert job.tasks[0].outputs == {"rows": 3}
    pages = [page async for page in await colony.manager.follow_log(job.id, None, None)]
    lines = [line.text for page in pages for line in page if line.task_type == "count"]
    assert lines == ["counting"]


async def test_a_python_function_gets_json_and_gives_json(colony: Any) -> None:
    job = await colony.run(
        """
job_type: doubling
job_variables: {number: 21}
tasks:
  - task_type: double
    method: PYTHON
    function: queen_functions:double
    args: ["{{ number }}"]
"""
    )
    assert job.state is JobState.COMPLETED, job
    assert job.tasks[0].outputs == {"result": 42}


async def test_independent_tasks_run_side_by_side(colony: Any, tmp_path: Path) -> None:
    tasks = "".join(
        f"  - {{task_type: t{n}, method: SHELL, script: ['touch {tmp_path}/{n}', "
        f"'while [ $(ls {tmp_path} | wc -l) -lt 4 ]; do sleep 0.02; done']}}\n"
        for n in range(4)
    )
    job = await colony.run(f"job_type: side-by-side\ntasks:\n{tasks}")
    assert job.state is JobState.COMPLETED, job


async def test_an_exit_code_routes_and_the_join_after_it_waits_for_nothing(colony: Any, states: States) -> None:
    job = await colony.run(
        """
job_type: routed
tasks:
  - {task_type: check, method: SHELL, script: [exit 3], on_exit_code: {3: quarantine}, on_completed: load}
  - {task_type: load, method: SHELL, script: ["true"], on_completed: report}
  - {task_type: quarantine, method: SHELL, script: ["true"], on_completed: report}
  - {task_type: report, method: SHELL, script: ["true"]}
"""
    )
    assert job.state is JobState.COMPLETED, job
    assert states(job) == {
        "check": "COMPLETED",
        "load": "SKIPPED",
        "quarantine": "COMPLETED",
        "report": "COMPLETED",
    }


async def test_a_failure_says_what_to_do_and_always_run_tasks_run(colony: Any, states: States) -> None:
    job = await colony.run(
        """
job_type: failing
tasks:
  - {task_type: explode, method: PYTHON, function: "queen_functions:explode", on_completed: after}
  - {task_type: after, method: SHELL, script: ["true"]}
  - {task_type: cleanup, method: SHELL, script: ["true"], always_run: true}
"""
    )
    assert job.state is JobState.FAILED
    assert states(job) == {"explode": "FAILED", "after": "SKIPPED", "cleanup": "COMPLETED"}
    assert job.tasks[0].error_code == "ERR_EXIT_CODE"
    assert "explode" in (job.error_message or "")


async def test_a_task_is_tried_again_as_often_as_it_says(colony: Any, tmp_path: Path) -> None:
    job = await colony.run(
        f"""
job_type: stubborn
tasks:
  - task_type: try
    method: SHELL
    retry: 3
    delay_between_retries: 50ms
    script: ["echo x >> {tmp_path}/tries", "test $(wc -l < {tmp_path}/tries) -ge 3"]
"""
    )
    assert job.state is JobState.COMPLETED, job
    assert (job.tasks[0].attempt, job.tasks[0].retries_used) == (3, 2)


async def test_a_task_that_overstays_is_stopped(colony: Any) -> None:
    job = await colony.run(
        "job_type: slow\ntasks:\n  - {task_type: sleep, method: SHELL, script: [sleep 60], timeout: 300ms}\n"
    )
    assert (job.state, job.tasks[0].error_code) == (JobState.FAILED, "ERR_TASK_TIMEOUT"), job


async def test_a_job_that_overstays_is_stopped(colony: Any) -> None:
    job = await colony.run(
        "job_type: slow-job\ntimeout: 500ms\ntasks:\n  - {task_type: sleep, method: SHELL, script: [sleep 60]}\n"
    )
    assert (job.state, job.error_code) == (JobState.FAILED, "ERR_JOB_TIMEOUT"), job


async def test_cancel_stops_what_runs(colony: Any, tmp_path: Path) -> None:
    job_id = await colony.submit(
        f"job_type: endless\ntasks:\n"
        f"  - {{task_type: wait, method: SHELL, script: ['echo $$ > {tmp_path}/pid', sleep 600]}}\n"
    )
    await colony.until(job_id, lambda _: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    await colony.manager.cancel(job_id)
    job = await colony.end(job_id)
    assert job.state is JobState.CANCELLED
    assert job.tasks[0].state == "CANCELLED"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    with pytest.raises(ConflictError):
        await colony.manager.cancel(job_id)


async def test_pause_starts_nothing_new_and_resume_goes_on(colony: Any, tmp_path: Path, states: States) -> None:
    job_id = await colony.submit(
        f"""
job_type: pausing
tasks:
  - task_type: first
    method: SHELL
    script: ["while ! test -e {tmp_path}/go; do sleep 0.02; done"]
    on_completed: then
  - {{task_type: then, method: SHELL, script: ["true"]}}
"""
    )
    await colony.until(job_id, lambda job: job.tasks[0].state == "EXECUTING")
    await colony.manager.pause(job_id)
    await colony.until(job_id, lambda job: job.state is JobState.PAUSED)
    (tmp_path / "go").touch()
    job = await colony.until(job_id, lambda job: job.tasks[0].state == "COMPLETED")
    assert states(job)["then"] in {"PENDING", "PAUSED"}
    await colony.manager.resume(job_id)
    assert (await colony.end(job_id)).state is JobState.COMPLETED


async def test_a_restart_runs_only_what_failed(colony: Any, tmp_path: Path) -> None:
    job = await colony.run(
        f"""
job_type: restartable
tasks:
  - {{task_type: good, method: SHELL, script: ["echo x >> {tmp_path}/good"], on_completed: bad}}
  - {{task_type: bad, method: SHELL, script: ["test -e {tmp_path}/fixed"], on_completed: last}}
  - {{task_type: last, method: SHELL, script: ["true"]}}
"""
    )
    assert job.state is JobState.FAILED
    (tmp_path / "fixed").touch()
    assert (await colony.manager.restart(job.id, RestartRequest())).attempt == 2
    ended = await colony.end(job.id)  # not the former end
    assert (ended.attempt, ended.state) == (2, JobState.COMPLETED)
    assert (tmp_path / "good").read_text() == "x\n"


async def test_artifacts_reach_the_tasks_that_depend_on_them(colony: Any) -> None:
    job = await colony.run(
        """
job_type: passing-files
tasks:
  - {task_type: make, method: SHELL, script: [mkdir out, echo 42 > out/answer.txt], artifacts: {paths: [out]}}
  - {task_type: use, method: SHELL, dependencies: [make], script: [test $(cat out/answer.txt) = 42]}
"""
    )
    assert job.state is JobState.COMPLETED, job
    assert [(ref.name, ref.folder) for ref in job.tasks[0].artifacts] == [("out.tar.zst", "out")]
    download = await colony.manager.artifact(job.id, "make", "out.tar.zst")
    assert b"".join([chunk async for chunk in download.chunks])[:4] == b"\x28\xb5\x2f\xfd"


async def test_a_waiting_job_says_why(colony: Any) -> None:
    job_id = await colony.submit(
        "job_type: picky\ntasks:\n  - {task_type: train, method: SHELL, tags: [gpu], script: ['true']}\n"
    )
    job = await colony.until(job_id, lambda job: job.waiting_for is not None)
    assert "no live ant offers SHELL with tags [gpu]" in job.waiting_for
    await colony.manager.cancel(job_id)
    assert (await colony.end(job_id)).state is JobState.CANCELLED


async def test_max_concurrency_holds_and_is_said(colony: Any, tmp_path: Path) -> None:
    source = f"""
job_type: one-at-a-time
max_concurrency: 1
tasks:
  - {{task_type: wait, method: SHELL, script: ["while ! test -e {tmp_path}/go; do sleep 0.02; done"]}}
"""
    first = await colony.submit(source)
    second = await colony.submit(source)
    await colony.until(first, lambda job: job.state is JobState.EXECUTING)
    job = await colony.until(second, lambda job: job.waiting_for is not None)
    assert f"max_concurrency 1 of one-at-a-time is in use by job {first}" in job.waiting_for
    (tmp_path / "go").touch()
    assert (await colony.end(second)).state is JobState.COMPLETED


async def test_a_scheduled_job_starts_when_it_is_due(colony: Any) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)
    job = await colony.run(
        "job_type: later\ntasks:\n  - {task_type: t, method: SHELL, script: ['true']}\n", scheduled_at=due
    )
    assert job.started_at is not None
    assert job.started_at >= due


async def test_skip_if_ends_the_job_at_once(colony: Any, states: States) -> None:
    source = "job_type: skippable\nskip_if: '{{ dry }}'\ntasks:\n  - {task_type: t, method: SHELL, script: ['true']}\n"
    job = await colony.run(source, params={"dry": True})
    assert (job.state, states(job)) == (JobState.COMPLETED, {"t": "SKIPPED"})


async def test_a_skip_if_that_cannot_be_rendered_fails_the_job(colony: Any, states: States) -> None:
    source = (
        "job_type: unclear\nskip_if: '{{ nowhere }}'\ntasks:\n  - {task_type: t, method: SHELL, script: ['true']}\n"
    )
    job = await colony.run(source)
    assert (job.state, job.error_code, states(job)) == (JobState.FAILED, "ERR_TEMPLATE", {"t": "SKIPPED"})
    assert "nowhere" in job.error_message


async def test_a_template_that_cannot_be_rendered_fails_its_task(colony: Any) -> None:
    job = await colony.run(
        "job_type: undefined-name\ntasks:\n  - {task_type: t, method: SHELL, script: ['echo {{ nowhere }}']}\n"
    )
    assert job.state is JobState.FAILED
    assert job.tasks[0].error_code == "ERR_TEMPLATE", job
    assert "nowhere" in job.tasks[0].error_message


async def test_many_jobs_at_once_all_end(colony: Any) -> None:
    source = (
        "job_type: small\ntasks:\n  - {task_type: t, method: PYTHON, function: 'queen_functions:double', args: [1]}\n"
    )
    ids = await asyncio.gather(*[colony.submit(source) for _ in range(200)])
    jobs = [await colony.end(job_id) for job_id in ids]
    assert {job.state for job in jobs} == {JobState.COMPLETED}


async def test_the_ant_is_listed(colony: Any) -> None:
    (ant,) = colony.manager.ants()
    assert (ant.slots, ant.running) == (4, 0)
    assert "SHELL" in ant.methods
