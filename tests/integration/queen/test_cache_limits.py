"""Caches of a running colony stay within their limits, and those in use stay."""

from typing import Any

import pytest

from formicary.artifacts.caches import ROOT, CacheEntry, parse_name
from formicary.clock import SystemClock
from formicary.model.jobs import CacheResult
from formicary.queen.caches import CacheEviction, CacheLimits
from formicary.store.caches import CacheUses

JOB = """
job_type: {job_type}
required_params: [key]
tasks:
  - task_type: build
    method: SHELL
    cache: {{key: "{{{{ key }}}}", paths: [deps]}}
    script: ["test -d deps || {{ mkdir deps; head -c 20000 /dev/urandom > deps/data; }}"]
"""


class Leader:
    def __init__(self, epoch: int | None) -> None:
        self._epoch = epoch

    def leader_epoch(self) -> int | None:
        return self._epoch


class Place:
    """The colony's store, and an eviction over its database."""

    def __init__(self, colony: Any) -> None:
        self._colony = colony
        self.store = colony.manager._stores.artifacts.store
        self._database = colony.manager._stores.database

    def eviction(self, limits: CacheLimits) -> CacheEviction:
        return CacheEviction(self.store, CacheUses(self._database), Leader(1), SystemClock(), limits)

    async def entries(self) -> dict[str, CacheEntry]:
        names = [name async for name in self.store.list(ROOT)]
        return {entry.key: entry for name in names if (entry := parse_name(name)) is not None}

    async def build(self, job_type: str, key: str) -> CacheResult:
        job = await self._colony.run(JOB.format(job_type=job_type), params={"key": key})
        result: CacheResult = job.tasks[0].cache.result
        return result


@pytest.fixture
def place(colony: Any) -> Place:
    return Place(colony)


@pytest.mark.parametrize("store_kind", ["local", "s3"])
async def test_the_least_recently_used_go_and_whoever_misses_them_stores_them_again(place: Place) -> None:
    for key in ("old", "middle", "young"):
        assert await place.build("limited", key) is CacheResult.MISS
    assert await place.build("limited", "old") is CacheResult.HIT
    assert await place.build("other", "lonely") is CacheResult.MISS

    gone = await place.eviction(CacheLimits(45_000, 10**9)).run_once()

    assert [entry.key for entry in gone] == ["middle"]
    assert {"old", "young", "lonely"} <= (await place.entries()).keys()
    assert await place.build("limited", "middle") is CacheResult.MISS
    assert await place.build("limited", "middle") is CacheResult.HIT

    gone = await place.eviction(CacheLimits(10**9, 25_000)).run_once()
    assert [entry.key for entry in gone][-3:] == ["young", "old", "lonely"]
    assert list(await place.entries()) == ["middle"]


async def test_limits_that_hold_cost_no_look_into_the_database(place: Place) -> None:
    assert await place.build("roomy", "k") is CacheResult.MISS
    nobody: Any = None
    eviction = CacheEviction(place.store, nobody, Leader(1), SystemClock(), CacheLimits(10**9, 10**9))
    assert await eviction.run_once() == []
