"""A cache of a task that runs in a pod: moved in before its script and out after its success, as it was."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.kubernetes.executor import KubernetesExecutor
from executors.kubernetes.options import KubernetesOptions
from executors.options import ExecutorOptions
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Order
from formicary.ids import AntId
from formicary.model.definition import CachePolicy
from formicary.model.jobs import CacheRecord, CacheResult
from formicary.testing.owner import ScriptedOwner, order
from tests.integration.kubernetes.conftest import script

pytestmark = pytest.mark.asyncio(loop_scope="module")

INSTALL = (
    "test -d deps/bin || { echo installing; mkdir -p deps/bin deps/empty; echo 'echo tool' > deps/bin/tool;"
    " chmod 755 deps/bin/tool; ln -s bin/tool deps/tool; chmod 750 deps/bin; touch -d @1000000000 deps/bin/tool; }",
    "sh deps/tool; stat -c %a deps/bin deps/bin/tool; stat -c %Y deps/bin/tool; test -d deps/empty -a -L deps/tool",
)


@pytest_asyncio.fixture(loop_scope="module")
async def owner(options: KubernetesOptions, tmp_path: Path) -> AsyncIterator[ScriptedOwner]:
    """The owner of an ant that runs pods."""
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "test", SystemClock())
    store = LocalStore(tmp_path / "artifacts")
    await store.open()
    executor = KubernetesExecutor(ExecutorOptions(kubernetes=options))
    config = AntConfig(id=AntId("ant-1"), home=tmp_path / "home")
    ant = Ant(bus, {"KUBERNETES": executor}, store, config, SystemClock())
    await ant.start()
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    answering = asyncio.create_task(owner.answer())
    yield owner
    answering.cancel()
    await ant.stop()
    await broker.close()


def cached(key: str) -> Order:
    policy = CachePolicy(key=key, restore_keys=("tool-",), paths=("deps",))
    return order("KUBERNETES", script(*INSTALL), cache=policy)


async def test_the_next_pods_find_what_the_first_one_left_as_it_was(owner: ScriptedOwner) -> None:
    records: list[CacheRecord] = []
    for number, key in enumerate(("tool-1", "tool-1", "tool-2")):
        end = await owner.run(cached(key), task_no=number)
        assert end.is_success, (end, await owner.lines())
        assert end.cache is not None
        records.append(end.cache)

    found = [(record.result, record.problem) for record in records]
    assert found == [(CacheResult.MISS, None), (CacheResult.HIT, None), (CacheResult.RESTORED, None)]
    lines = await owner.lines()
    texts = [[text for _, number, _, text in lines if number == wanted] for wanted in range(3)]
    said = ["tool", "750", "755", "1000000000"]
    assert [text for text in texts[0] if "cache" not in text] == ["installing", *said]
    assert [text for text in texts[2] if "cache" not in text] == said
    assert "cache 'tool-2': equals what was restored, so its bytes are not sent again" in texts[2]
