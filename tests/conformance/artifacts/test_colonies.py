"""Colonies leave marks in a store that people can read, and take away."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.colonies import Mark, Marked, key_of, marked, put_mark, remove_mark

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


async def test_a_mark_says_who_renewed_it_last_and_when(store: ArtifactStore, work: Path) -> None:
    await put_mark(store, "b", NOW)
    await put_mark(store, "a", NOW)
    await put_mark(store, "a", NOW + timedelta(hours=1))
    host = socket.gethostname()
    assert await marked(store) == [Marked("a", Mark(host, NOW + timedelta(hours=1))), Marked("b", Mark(host, NOW))]
    await remove_mark(store, "a")
    await remove_mark(store, "a")
    assert [each.colony_id for each in await marked(store)] == ["b"]


async def test_a_mark_that_says_nothing_is_one_too(store: ArtifactStore, work: Path) -> None:
    (work / "empty").touch()
    await store.put(key_of("old"), work / "empty")
    assert await marked(store) == [Marked("old", Mark())]
