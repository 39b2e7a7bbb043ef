"""What every executor promises, of containers on Podman's socket; conformance runs it on a Docker Engine."""

from collections.abc import Awaitable, Callable, Iterator

import pytest

from executors.base import Run
from executors.testing import Specimen
from tests.conformance.executors.containers import docker_specimen
from tests.conformance.executors.test_contract import *  # noqa: F403 - the one suite of all executors
from tests.engines import TestEngine, needs_own_engine, running_engine
from tests.integration.docker.conftest import Bench

pytestmark = [needs_own_engine, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    with running_engine("podman") as engine:
        yield engine


@pytest.fixture
def specimen(bench: Bench) -> Specimen:
    return docker_specimen(bench.executor)


@pytest.fixture
def begin(bench: Bench) -> Callable[..., Awaitable[Run]]:
    return bench.start
