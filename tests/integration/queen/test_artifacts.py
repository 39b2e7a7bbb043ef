"""Artifacts from their task to their end: kept, expired, swept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.blobs import PREFIX, Blobs
from formicary.artifacts.registry import make_store
from formicary.errors import ExpiredError, NotFoundError
from formicary.model.holders import Holder
from formicary.model.states import JobState
from formicary.queen.manager.commands import RestartRequest


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[ArtifactStore]:
    store = make_store(store_url)
    await store.open()
    yield store
    await store.close()


async def until_copies(store: ArtifactStore, wanted: int) -> None:
    async with asyncio.timeout(40):
        while len([key async for key in store.list(PREFIX)]) != wanted:  # noqa: ASYNC110 - objects have no signal
            await asyncio.sleep(0.05)


async def read(colony: Any, job_id: str, name: str, attempt: int | None = None) -> bytes:
    download = await colony.manager.artifact(job_id, "make", name, attempt)
    return b"".join([chunk async for chunk in download.chunks])


def definition(job_type: str, policy: str, wait: str = "'true'") -> str:
    return f"""
job_type: {job_type}
tasks:
  - {{task_type: make, method: SHELL, script: ["echo {job_type} > f"], artifacts: {{paths: [f], {policy}}}}}
  - {{task_type: wait, method: SHELL, dependencies: [make], script: [{wait}]}}
  - {{task_type: use, method: SHELL, dependencies: [make, wait], script: [cat f]}}
"""


@pytest.mark.parametrize("store_kind", ["local", "s3"])
async def test_what_expired_is_gone_and_a_restart_that_needs_it_says_so(tidy_colony: Any, store: ArtifactStore) -> None:
    job = await tidy_colony.run(definition("expiring", "expires_after: 10ms"))
    assert job.state is JobState.COMPLETED, job
    ref = job.tasks[0].artifacts[0]
    assert ref.expires_at is not None
    with pytest.raises(ExpiredError, match="artifact 'f' expired at 2"):
        await read(tidy_colony, job.id, "f")
    await tidy_colony.until(job.id, lambda job: job.tasks[0].artifacts[0].is_expired)
    await until_copies(store, 0)

    await tidy_colony.manager.restart(job.id, RestartRequest(from_task="use"))
    job = await tidy_colony.end(job.id)
    assert (job.state, job.tasks[2].error_code) == (JobState.FAILED, "ERR_ARTIFACT")
    assert 'artifact f of task "make" expired at 2' in job.tasks[2].error_message
    assert "restart the job from that task" in job.tasks[2].error_message

    await tidy_colony.manager.restart(job.id, RestartRequest(from_task="make"))
    assert (await tidy_colony.end(job.id)).state is JobState.COMPLETED


async def test_a_task_without_a_place_for_files_needs_none_of_those_it_depends_on(tidy_colony: Any) -> None:
    job = await tidy_colony.run("""
job_type: placeless
tasks:
  - {task_type: make, method: SHELL, script: ["echo 1 > f"], artifacts: {paths: [f], expires_after: 10ms}}
  - {task_type: use, method: PYTHON, dependencies: [make], function: "operator:add", args: [2, 2]}
""")
    await tidy_colony.until(job.id, lambda job: job.tasks[0].artifacts[0].is_expired)

    await tidy_colony.manager.restart(job.id, RestartRequest(from_task="use"))

    job = await tidy_colony.end(job.id)
    assert (job.state, job.tasks[1].attempt, job.tasks[1].outputs) == (JobState.COMPLETED, 2, {"result": 4})


async def test_a_restart_is_noted_before_the_job_is_read_so_that_nothing_expires_meanwhile(colony: Any) -> None:
    job = await colony.run(definition("restarted", "expires_after: 1h"))
    await colony.manager.restart(job.id, RestartRequest(from_task="use"))
    connection = await asyncpg.connect(colony.running.database_url)
    held_by = "SELECT held_by = c.id FROM jobs j JOIN job_commands c ON c.job_id = j.id WHERE j.id = $1::uuid"
    assert await connection.fetchval(held_by, job.id)
    await connection.close()
    await colony.end(job.id)


async def test_a_running_job_keeps_what_expired(tidy_colony: Any) -> None:
    job = await tidy_colony.run(definition("slow", "expires_after: 10ms", "sleep 2.5"))
    assert job.state is JobState.COMPLETED, job


async def test_what_nothing_refers_to_is_swept(tidy_colony: Any, store: ArtifactStore, tmp_path: Path) -> None:
    job = await tidy_colony.run(definition("keeping", "when: always"))
    source = tmp_path / "source"
    source.write_text("of an ant that was lost\n")
    await Blobs(store).add(source, Holder(job.id, 0, 99))
    await Blobs(store).add(source, Holder("of another age", 0, 1))

    await until_copies(store, 1)
    assert await read(tidy_colony, job.id, "f") == b"keeping\n"


async def test_former_attempts_keep_what_they_left(tidy_colony: Any) -> None:
    job = await tidy_colony.run("""
job_type: trying
tasks:
  - {task_type: make, method: SHELL, retry: 1, script: ['echo $FORMICARY_ATTEMPT > f; test $FORMICARY_ATTEMPT = 2'],
     artifacts: {paths: [f], when: always}}
""")
    assert job.state is JobState.COMPLETED, job
    assert [await read(tidy_colony, job.id, "f", attempt) for attempt in (None, 1, 2)] == [b"2\n", b"1\n", b"2\n"]
    with pytest.raises(NotFoundError, match="attempt 3"):
        await read(tidy_colony, job.id, "f", 3)


@pytest.mark.parametrize("store_kind", ["local", "s3"])
async def test_a_result_that_was_taken_keeps_its_artifacts_after_the_source_expired(
    tidy_colony: Any, tmp_path: Path, store_kind: str
) -> None:
    source = f"""
job_type: remembering-{store_kind}
tasks:
  - {{task_type: make, method: SHELL, memoize: {{key: k}}, script: [echo run >> {tmp_path}/ledger; echo 42 > f],
      artifacts: {{paths: [f]}}}}
"""
    first, second = await tidy_colony.run(source), await tidy_colony.run(source)
    assert second.tasks[0].reused_from.job_id == first.id

    await let_expire(tidy_colony, first.id)
    assert await read(tidy_colony, second.id, "f") == b"42\n"
    third = await tidy_colony.run(source)  # the source's files are gone: its result is no more
    assert third.tasks[0].reused_from is None
    assert await read(tidy_colony, third.id, "f") == b"42\n"


async def let_expire(colony: Any, job_id: str) -> None:
    connection = await asyncpg.connect(colony.running.database_url)
    await connection.execute("UPDATE artifacts SET expires_at = now() WHERE job_id = $1::uuid", job_id)
    await connection.close()
    await colony.until(job_id, lambda job: job.tasks[0].artifacts[0].is_expired)


@pytest.mark.parametrize("store_kind", ["local", "s3"])
async def test_output_that_moved_to_the_store_is_read_from_there(tidy_colony: Any, store: ArtifactStore) -> None:
    job = await tidy_colony.run("""
job_type: talking
tasks: [{task_type: talk, method: SHELL, script: ["seq 1 5000"]}]
""")
    rows = "SELECT count(*) AS count FROM task_logs WHERE job_id = $1::uuid"
    async with asyncio.timeout(40):
        while (await tidy_colony.manager._stores.database.fetch(rows, job.id))[0]["count"]:  # noqa: ASYNC110 - rows have no signal
            await asyncio.sleep(0.05)

    assert [key async for key in store.list(f"logs/{job.id}/")] != []
    pages = await tidy_colony.manager.log_lines(job.id, None, None)
    assert [line.text async for page in pages for line in page] == [str(number) for number in range(1, 5001)]


async def test_a_task_lets_the_queen_expire_artifacts_at_once(colony: Any) -> None:
    job = await colony.run(definition("at-once", "expires_after: 1ms"))
    tidy = await colony.run("""
job_type: tidy
tasks:
  - {task_type: expire, method: EXPIRE_ARTIFACTS}
  - {task_type: tell, method: SHELL, dependencies: [expire], script: ["echo {{ tasks.expire.outputs.expired_count }}"]}
""")
    assert tidy.state is JobState.COMPLETED, tidy
    assert (tidy.tasks[0].attempt, tidy.tasks[0].ant_id, tidy.tasks[0].exit_code) == (1, "up", 0)
    assert set(tidy.tasks[0].outputs) == {"expired_count", "deleted_count"}
    assert (await colony.manager.job(job.id)).tasks[0].artifacts[0].is_expired


async def test_nothing_is_swept_where_another_colony_uses_the_store(tidy_colony: Any, store: ArtifactStore) -> None:
    await Blobs(store).mark("colonies/another")
    job = await tidy_colony.run(definition("sharing", "expires_after: 10ms"))
    await tidy_colony.until(job.id, lambda job: job.tasks[0].artifacts[0].is_expired)
    assert [key async for key in store.list(PREFIX)] != []
