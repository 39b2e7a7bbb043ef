"""Caches are found, replaced and deleted in every store, whatever their keys."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.caches import ROOT, CacheEntry, CacheScope, find, find_beginning, new_entry, parse_name
from formicary.clock import SystemClock
from formicary.queen.caches import CacheEviction, CacheLimits

NOW = datetime.now(UTC)
SCOPE = CacheScope("default", "build: all")


async def put(store: ArtifactStore, work: Path, key: str, age_s: float = 0.0, content: bytes = b"x") -> CacheEntry:
    path = work / "archive"
    path.write_bytes(content)
    made_at = NOW - timedelta(seconds=age_s)
    entry = new_entry(SCOPE, key, made_at, None, len(content), hashlib.sha256(content).hexdigest())
    await store.put(entry.name, path)
    return entry


@pytest.mark.parametrize("key", ["plain", ".hidden", "a/b c", "ünï%20+?#&=", "!2E", "..", "k" * 240])
async def test_a_cache_comes_back_by_its_key_and_by_its_beginning(store: ArtifactStore, work: Path, key: str) -> None:
    entry = await put(store, work, key, content=b"content")
    assert await find(store, SCOPE, key, NOW) == entry
    assert await find_beginning(store, SCOPE, key[:1], NOW) == entry
    await store.fetch(entry.name, work / "back", entry.sha256)
    assert (work / "back").read_bytes() == b"content"
    assert [parse_name(name) async for name in store.list(ROOT)] == [entry]


async def test_the_newest_of_a_key_is_found_and_eviction_leaves_it(store: ArtifactStore, work: Path) -> None:
    older = await put(store, work, "k", age_s=9_000)
    newer = await put(store, work, "k", age_s=5_000, content=b"newer")
    assert await find(store, SCOPE, "k", NOW) == newer
    nobody: Any = None  # within the limits no database is asked, and who leads asks itself
    eviction = CacheEviction(store, nobody, nobody, SystemClock(), CacheLimits(10**9, 10**9))
    assert await eviction.run_once() == [older]
    assert [parse_name(name) async for name in store.list(ROOT)] == [newer]
