"""One store per backend; S3 is a server in a process of its own, and each test has a prefix of its own."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.registry import make_store
from tests.s3_server import S3Server, serving


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"file://{tmp_path}/store%20here"
    server: S3Server = request.getfixturevalue("s3")
    return server.url(f"of%20test/{os.urandom(6).hex()}")


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[ArtifactStore]:
    store = make_store(store_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder
