"""One store per backend."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.registry import make_store


@pytest.fixture(params=["local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    store = make_store(f"file://{tmp_path}/store%20here")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
