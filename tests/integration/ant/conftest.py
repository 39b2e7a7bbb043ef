"""An ant on the memory broker, and the scripted owner that dispatches to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.options import ExecutorOptions
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.ids import AntId
from formicary.testing.owner import ScriptedOwner


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    yield Bus(broker, "test", SystemClock())
    await broker.close()


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "artifacts")
    await store.open()
    return store


AntMaker = Callable[..., Awaitable[Ant]]


@pytest.fixture
async def make_ant(bus: Bus, store: LocalStore, tmp_path: Path) -> AsyncIterator[AntMaker]:
    ants: list[Ant] = []

    async def make(options: ExecutorOptions | None = None, store: LocalStore = store, **config: Any) -> Ant:
        executors = make_executors(("SHELL", "PYTHON", "DUMMY"), options)
        settings = AntConfig(id=AntId("ant-1"), home=tmp_path / "home", **config)
        ant = Ant(bus, executors, store, settings, SystemClock())
        ants.append(ant)
        await ant.start()
        return ant

    yield make
    await asyncio.gather(*(ant.stop() for ant in ants))


@pytest.fixture
async def ant(make_ant: AntMaker) -> Ant:
    return await make_ant(slots=4)


@pytest.fixture
def owner(bus: Bus, ant: Ant) -> ScriptedOwner:
    return ScriptedOwner(bus, lambda: ant.registration.incarnation)
