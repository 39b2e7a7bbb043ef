"""Jobs that ended long ago are deleted with everything that they left, and nothing of theirs stays in the store."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.colonies import ROOT as COLONIES
from formicary.errors import ExpiredError, NotFoundError
from formicary.model.jobs import JobRequest

JOB = """
job_type: kept-for-a-second
tasks:
  - {task_type: make, method: SHELL, script: ["echo made; echo content > made"], artifacts: {paths: [made]}}
"""


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, warm_home: Path) -> str:
    if request.param == "local":
        return f"{warm_home.as_uri()}/forgetful"
    url: str = request.getfixturevalue("s3").url(f"forgetful/{os.urandom(6).hex()}")
    return url


@pytest.fixture
async def colony(warm_home: Path, store_url: str) -> AsyncIterator[wiring.Colony]:
    environ = {
        "FORMICARY_HOME": str(warm_home),
        "FORMICARY_ARTIFACTS_URL": store_url,
        "FORMICARY_JOBS_RETENTION_S": "1",
        "FORMICARY_LOGS_ARCHIVE_AFTER_S": "0",
        "FORMICARY_ARTIFACTS_SWEEP_S": "1",
    }
    async with wiring.up(settings_module.load(environ), AntOptions(slots=2)) as running:
        yield running


async def test_nothing_is_left_of_a_job_whose_time_is_over(colony: wiring.Colony) -> None:
    manager: Any = colony.manager
    await manager.save_definition(JOB)
    request = JobRequest(job_type="kept-for-a-second", idempotency_key=os.urandom(8).hex())
    job_id = (await manager.submit(request)).job.id
    await manager.wait_for_end(job_id, 60.0)
    store: ArtifactStore = manager._stores.artifacts.store

    async with asyncio.timeout(60):
        while await is_known(manager, job_id) or await keys(store):  # noqa: ASYNC110 - rows and objects
            await asyncio.sleep(0.1)

    for table in ("tasks", "artifacts", "job_history", "task_logs", "log_parts", "deleted_jobs"):
        rows = await manager._stores.database.fetch(f"SELECT 1 FROM {table} WHERE job_id = $1::uuid", job_id)
        assert rows == [], table
    with pytest.raises(ExpiredError, match="use a new key"):
        await manager.submit(request)


async def is_known(manager: Any, job_id: str) -> bool:
    try:
        await manager.job(job_id)
    except NotFoundError:
        return False
    return True


async def keys(store: ArtifactStore) -> list[str]:
    return [key async for key in store.list("") if not key.startswith((COLONIES, "caches/"))]
