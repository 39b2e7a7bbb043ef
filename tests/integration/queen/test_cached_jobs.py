"""What people see of caches: in the job, for each attempt, and across jobs."""

import json
from typing import Any

import pytest

from formicary.model.jobs import CacheRecord, CacheResult
from formicary.model.states import JobState

JOB = """
job_type: %s
required_params: [version]
tasks:
  - task_type: build
    method: SHELL
    cache: {key: "deps-{{ version }}", restore_keys: [deps-], paths: [deps]}
    script:
      - mkdir -p deps
      - echo {{ version }} >> deps/versions
      - echo "versions=$(wc -l < deps/versions)" >> "$FORMICARY_OUTPUT"
      - %s
"""


def cache_of(job: Any) -> CacheRecord:
    assert job.state is JobState.COMPLETED, job
    record: CacheRecord = job.tasks[0].cache
    return record


@pytest.mark.parametrize("store_kind", ["local", "s3"])
async def test_jobs_of_one_type_share_caches_and_say_what_they_found(colony: Any) -> None:
    source = JOB % ("cached", "true")
    first = await colony.run(source, params={"version": "1"})
    again = await colony.run(source, params={"version": "1"})
    newer = await colony.run(source, params={"version": "2"})

    assert cache_of(first).result is CacheResult.MISS
    assert cache_of(again) == CacheRecord(
        key="deps-1",
        result=CacheResult.HIT,
        restored_key="deps-1",
        restored_bytes=cache_of(first).stored_bytes,
    )
    assert (cache_of(newer).result, cache_of(newer).restored_key) == (CacheResult.RESTORED, "deps-1")
    assert [job.tasks[0].outputs["versions"] for job in (first, again, newer)] == [1, 2, 2]


async def test_each_attempt_keeps_what_its_own_cache_did(colony: Any) -> None:
    source = JOB % ("cached-retry", 'test "$FORMICARY_ATTEMPT" = 2') + "    retry: 1\n"
    job = await colony.run(source, params={"version": "1"})
    assert cache_of(job).stored_bytes
    (former,) = await colony.manager._stores.jobs.attempts(job.id)
    assert json.loads(former.cache) == {"key": "deps-1", "result": "miss"}
