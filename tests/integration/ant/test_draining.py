"""What a drained ant owes before it leaves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from brokers.memory_server import MemoryServer
from formicary.ant import ant as ants
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.tasks import TaskStarted
from formicary.testing.owner import ScriptedOwner, shell
from tests.integration.ant.cut_off_ant import RemoteBroker


@pytest.fixture
async def broker() -> AsyncIterator[RemoteBroker]:
    broker = RemoteBroker(MemoryServer())
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
def bus(broker: RemoteBroker) -> Bus:
    return Bus(broker, "test", SystemClock())


async def test_an_end_that_cannot_be_reported_keeps_a_drained_ant_until_the_broker_is_back(
    make_ant: Any, broker: RemoteBroker, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ants, "FAREWELL_S", 0.0)
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(owner.dispatch(shell(f"until test -e {tmp_path}/go; do sleep 0.02; done")))
    await owner.report(TaskStarted)
    broker.is_away = True
    (tmp_path / "go").touch()
    leaving = asyncio.create_task(ant.drain())
    assert not (await asyncio.wait({leaving}, timeout=0.5))[0]
    broker.is_away = False
    await leaving
    assert (await owner.finished()).is_success
