"""Servers and colonies for these tests: real processes on real servers, in temporary folders and on private ports."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.colony.trial import Trial


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Short and readable for others: the embedded server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="formicary-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module", params=["redis", "kafka", "pulsar"])
def trial(request: pytest.FixtureRequest, folder: Path) -> Iterator[Trial]:
    """A colony of two queens and three ants with short leases, on each broker."""
    with Trial.on(request.param, folder / request.param) as running:
        yield running
