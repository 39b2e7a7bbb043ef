"""A cache of a task that runs in a container: moved in before its start and out after its success."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.docker.executor import DockerExecutor
from executors.options import ExecutorOptions
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Order
from formicary.ids import AntId
from formicary.model.definition import CachePolicy
from formicary.model.jobs import CacheResult
from formicary.testing.owner import ScriptedOwner, order
from tests.engines import TestEngine
from tests.integration.docker.conftest import spec

INSTALL = (
    "test -d deps/bin || { echo installing; mkdir -p deps/bin deps/empty; echo 'echo tool' > deps/bin/tool;"
    " chmod 755 deps/bin/tool; ln -s bin/tool deps/tool; chmod 555 deps/bin; }",
    "sh deps/tool",
    "test -d deps/empty -a -x deps/bin/tool -a -L deps/tool",
)


@pytest.fixture
async def owner(engine: TestEngine, tmp_path: Path) -> AsyncIterator[ScriptedOwner]:
    """The owner of an ant that runs containers."""
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "test", SystemClock())
    store = LocalStore(tmp_path / "artifacts")
    await store.open()
    executor = DockerExecutor(ExecutorOptions(docker_host=engine.url, docker_logins=tmp_path / "none.json"))
    config = AntConfig(id=AntId("ant-1"), home=tmp_path / "home", engine_url=engine.url)
    ant = Ant(bus, {"DOCKER": executor}, store, config, SystemClock())
    await ant.start()
    yield ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await ant.stop()
    await broker.close()


def cached(*script: str) -> Order:
    return order("DOCKER", spec(*script), cache=CachePolicy(key="tool", paths=("deps",)))


async def test_the_second_container_finds_what_the_first_one_left(owner: ScriptedOwner) -> None:
    first = await owner.run(cached(*INSTALL))
    assert first.is_success, (first, await owner.lines())
    assert first.cache is not None
    assert (first.cache.result, first.cache.problem) == (CacheResult.MISS, None)

    second = await owner.run(cached(*INSTALL), task_no=1)
    assert second.is_success, (second, await owner.lines())
    assert second.cache is not None
    assert (second.cache.result, second.cache.restored_bytes) == (CacheResult.HIT, first.cache.stored_bytes)
    texts = [(number, text) for _, number, _, text in await owner.lines() if text in ("installing", "tool")]
    assert texts == [(0, "installing"), (0, "tool"), (1, "tool")]
