"""Results of earlier runs, taken instead of running: across jobs, and only where everything is equal."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from formicary.model.jobs import JobView, ReusedFrom, TaskView
from formicary.model.states import JobState, TaskState
from formicary.queen.manager.commands import RestartRequest
from formicary.store.references import References

#: Two tasks; each run of the first one leaves a line in a ledger.
JOB = """
job_type: {job_type}
job_variables: {{day: monday, word: same}}
tasks:
  - task_type: extract
    method: SHELL
    memoize: {{key: "{{{{ day }}}}"{more}}}
    script:
      - echo run >> {ledger}
      - echo "{{{{ word }}}}" > rows.txt
      - echo "rows=$(wc -l < {ledger})" >> "$FORMICARY_OUTPUT"
    artifacts: {{paths: [rows.txt]}}
  - task_type: load
    method: SHELL
    dependencies: [extract]
    script: ["test {{{{ tasks.extract.outputs.rows }}}} = 1 || exit 9", "grep -q '{{{{ word }}}}' rows.txt"]
"""


class Ledger:
    def __init__(self, path: Path, job_type: str) -> None:
        self.path = path
        self.job_type = job_type

    def source(self, more: str = "") -> str:
        return JOB.format(job_type=self.job_type, ledger=self.path, more=more)

    @property
    def runs(self) -> int:
        return self.path.read_text().count("run") if self.path.exists() else 0


@pytest.fixture
def ledger(tmp_path: Path, request: pytest.FixtureRequest) -> Ledger:
    return Ledger(tmp_path / "ledger", f"memo-{request.node.name}"[:100])


def first_task(job: JobView) -> TaskView:
    assert job.tasks is not None
    return job.tasks[0]


def source_of(job: JobView) -> ReusedFrom:
    source = first_task(job).reused_from
    assert source is not None, job
    return source


async def restarted(colony: Any, job: JobView, request: RestartRequest) -> JobView:
    await colony.manager.restart(job.id, request)
    again: JobView = await colony.end(job.id)
    return again


async def test_a_second_job_takes_outputs_and_artifacts_and_says_from_where(colony: Any, ledger: Ledger) -> None:
    first = await colony.run(ledger.source())
    second = await colony.run(ledger.source())

    assert (first.state, second.state, ledger.runs) == (JobState.COMPLETED, JobState.COMPLETED, 1)
    earlier, task = first_task(first), first_task(second)
    assert earlier.reused_from is None
    assert (task.state, task.exit_code, task.ant_id, task.attempt) == (TaskState.COMPLETED, 0, None, 1)
    assert [(each.name, each.sha256) for each in task.artifacts] == [
        (each.name, each.sha256) for each in earlier.artifacts
    ]
    assert task.outputs == earlier.outputs == {"rows": 1}
    source = source_of(second)
    assert (source.job_id, source.task_type, source.attempt) == (first.id, "extract", 1)
    third = first_task(await colony.run(ledger.source()))
    assert third.reused_from == source  # whoever ran, not whoever took it last


async def test_another_key_another_script_or_another_job_type_runs(colony: Any, ledger: Ledger) -> None:
    await colony.run(ledger.source())
    await colony.run(ledger.source(), params={"day": "tuesday"})
    assert ledger.runs == 2
    await colony.run(ledger.source(), params={"word": "other"})
    assert ledger.runs == 3
    ledger.job_type += "-other"
    await colony.run(ledger.source())
    assert ledger.runs == 4


async def test_other_artifacts_of_a_dependency_are_other_inputs(colony: Any, tmp_path: Path) -> None:
    source = f"""
job_type: memo-inputs
tasks:
  - {{task_type: fetch, method: SHELL, script: ["cat {tmp_path}/input > input"], artifacts: {{paths: [input]}}}}
  - task_type: count
    method: SHELL
    dependencies: [fetch]
    memoize: {{key: count}}
    script: ['echo "words=$(wc -w < input)" >> "$FORMICARY_OUTPUT"']
"""
    seen = []
    for text in ("one two", "one two three", "one two"):
        (tmp_path / "input").write_text(text)
        task = (await colony.run(source)).tasks[1]
        seen.append((task.outputs["words"], task.reused_from is not None))
    assert seen == [(2, False), (3, False), (2, True)]


async def test_an_old_result_is_not_taken(colony: Any, ledger: Ledger) -> None:
    await colony.run(ledger.source(", expires_after: 1h"))
    await colony.run(ledger.source(", expires_after: 1h"))
    assert ledger.runs == 1
    await asyncio.sleep(0.01)  # by which the result is older than what the next definition takes
    await colony.run(ledger.source(", expires_after: 1ms"))
    assert ledger.runs == 2


async def test_a_result_of_which_an_artifact_expired_is_not_taken(colony: Any, ledger: Ledger) -> None:
    source = ledger.source().replace("paths: [rows.txt]", "paths: [rows.txt], expires_after: 1ms")
    await colony.run(source)
    assert await References(colony.manager._stores.database).expire(1000)
    again = await colony.run(source)
    assert (first_task(again).reused_from, ledger.runs) == (None, 2)


async def test_a_hard_restart_runs_everything_and_a_soft_one_does_not(colony: Any, ledger: Ledger) -> None:
    job = await colony.run(ledger.source())
    again = await restarted(colony, job, RestartRequest(mode="all"))
    assert (ledger.runs, again.state) == (2, JobState.FAILED)  # load refuses a second run
    again = await restarted(colony, again, RestartRequest(from_task="extract"))
    assert ledger.runs == 3
    soft = await restarted(colony, again, RestartRequest())
    assert (ledger.runs, soft.attempt) == (3, 4)
    await colony.run(ledger.source())
    assert ledger.runs == 3


async def test_failures_and_polls_are_no_results(colony: Any, tmp_path: Path) -> None:
    source = f"""
job_type: memo-sensor
tasks:
  - task_type: look
    method: SHELL
    memoize: {{key: look}}
    retry: 3
    on_exit_code: {{0: EXECUTING, 7: COMPLETED}}
    script: ["echo run >> {tmp_path}/ledger", "test $(wc -l < {tmp_path}/ledger) -lt 2 || exit 7"]
"""
    first, second = await colony.run(source), await colony.run(source)
    assert (first.state, first_task(first).attempt) == (JobState.COMPLETED, 2)
    assert source_of(second).attempt == 2
    assert (first_task(second).exit_code, (tmp_path / "ledger").read_text()) == (7, "run\nrun\n")

    failing = source.replace("memo-sensor", "memo-failing").replace("0: EXECUTING, 7: COMPLETED", "9: FATAL")
    assert [(await colony.run(failing)).state for _ in range(2)] == [JobState.FAILED] * 2
    assert (tmp_path / "ledger").read_text().count("run") > 3


async def test_every_method_can_be_memoized(colony: Any) -> None:
    source = """
job_type: memo-python
tasks:
  - {task_type: roll, method: PYTHON, function: "random:random", memoize: {key: roll}}
"""
    first, second = await colony.run(source), await colony.run(source)
    assert first_task(first).outputs == first_task(second).outputs
    assert source_of(second).job_id == first.id


async def test_a_key_that_cannot_be_rendered_fails_the_task(colony: Any) -> None:
    task = "{task_type: t, method: SHELL, script: ['true'], memoize: {key: '{{ nope }}'}}"
    job = await colony.run(f"job_type: memo-bad\ntasks:\n  - {task}\n")
    assert (job.state, first_task(job).error_code) == (JobState.FAILED, "ERR_TEMPLATE")
    assert "memoize.key" in str(first_task(job).error_message)


async def test_a_paused_job_takes_the_result_when_it_goes_on(colony: Any, ledger: Ledger, tmp_path: Path) -> None:
    await colony.run(ledger.source())
    gate = tmp_path / "gate"
    source = ledger.source().replace(
        "  - task_type: extract\n",
        f"  - {{task_type: before, method: SHELL, script: ['while [ ! -e {gate} ]; do sleep 0.02; done'], "
        "on_completed: extract}\n  - task_type: extract\n",
    )
    job_id = await colony.submit(source)
    await colony.until(job_id, lambda job: job.tasks[0].state is TaskState.EXECUTING)
    await colony.manager.pause(job_id)
    await colony.until(job_id, lambda job: job.state is JobState.PAUSED)
    gate.touch()
    await colony.until(job_id, lambda job: job.tasks[0].state is TaskState.COMPLETED)
    await colony.manager.resume(job_id)
    job = await colony.end(job_id)
    assert (job.state, ledger.runs, job.tasks[1].reused_from is not None) == (JobState.COMPLETED, 1, True)
