"""Servers and colonies for these tests: real processes on real servers, in temporary folders and on private ports."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.colony.servers import BrokerServer, PostgresServer
from tests.e2e.colony.stage import Stage
from tests.e2e.colony.trial import Trial


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def postgres(folder: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(folder / "postgres")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[BrokerServer]:
    server = BrokerServer("redis", folder / "servers")
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def stage_numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def stage(folder: Path, postgres: PostgresServer, redis: BrokerServer, stage_numbers: Iterator[int]) -> Iterator[Stage]:
    """Room for one colony: a fresh database, and topics of its own."""
    ready = Stage(folder / f"stage-{next(stage_numbers)}", redis, postgres)
    yield ready
    ready.close()
