"""The name of a stored cache says all about it, and the beginning of a key is the beginning of its names."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formicary.artifacts.caches import (
    CacheEntry,
    CacheKeyError,
    CacheScope,
    find,
    find_beginning,
    new_entry,
    parse_name,
    quoted_key,
)
from formicary.artifacts.keys import check_key
from formicary.artifacts.local import LocalStore

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SCOPE = CacheScope("default", "build:all")
SHA = "0" * 64
KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)


@given(KEYS, KEYS)
def test_a_name_tells_the_whole_entry_and_is_a_key_of_every_store(job_type: str, key: str) -> None:
    entry = new_entry(CacheScope("default", job_type), key, NOW, 60.0, 12, SHA)
    assert parse_name(entry.name) == entry
    assert check_key(entry.name)


@given(KEYS, KEYS)
def test_the_beginning_of_a_key_is_the_beginning_of_its_quoted_form(beginning: str, rest: str) -> None:
    assert quoted_key(beginning + rest).startswith(quoted_key(beginning))


def test_a_key_that_is_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(CacheKeyError, match="has 300 characters, 1 to 240"):
        new_entry(SCOPE, "ü" * 50, NOW, None, 1, SHA)


@pytest.mark.parametrize("name", ["caches/a/b/c", "1/2/3/file", "caches/default/j/k/1-2-3-x.tar.zst"])
def test_other_names_are_no_caches(name: str) -> None:
    assert parse_name(name) is None


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    await store.open()
    return store


async def put(store: LocalStore, entry: CacheEntry, tmp_path: Path) -> CacheEntry:
    (tmp_path / "content").write_text("x")
    await store.put(entry.name, tmp_path / "content")
    return entry


async def test_the_newest_live_entry_is_found_by_key_and_by_beginning(store: LocalStore, tmp_path: Path) -> None:
    def made(key: str, age_s: float, expires_after_s: float | None = None, scope: CacheScope = SCOPE) -> CacheEntry:
        return new_entry(scope, key, NOW - timedelta(seconds=age_s), expires_after_s, 1, SHA)

    await put(store, made("deps-1", 30), tmp_path)
    newer = await put(store, made("deps-1", 20), tmp_path)
    newest = await put(store, made("deps-10", 10), tmp_path)
    await put(store, made("deps-2", 5, expires_after_s=4), tmp_path)
    await put(store, made("deps-3", 1, scope=CacheScope("default", "build")), tmp_path)

    assert await find(store, SCOPE, "deps-1", NOW) == newer
    assert await find(store, SCOPE, "deps-2", NOW) is None
    assert await find(store, SCOPE, "deps-", NOW) is None
    assert await find_beginning(store, SCOPE, "deps-", NOW) == newest
    assert await find_beginning(store, SCOPE, "deps-1", NOW) == newest
    assert await find_beginning(store, SCOPE, "other", NOW) is None
