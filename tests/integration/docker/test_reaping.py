"""Containers do not outlive the ant that started them, however it ends."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from executors.docker import manifest
from executors.docker.engine import Engine
from executors.docker.reaper import Reaper
from formicary.ant.engines import remove_containers
from formicary.ant.warden import stat_fields
from tests.engines import IMAGE, TestEngine, needs_engine
from tests.integration.docker.conftest import until

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

#: So many containers that removing them, one after the other, takes longer than the warden's patience with an ant.
_MANY = 20
_CONTAINED_ANT = Path(__file__).with_name("contained_ant.py")
Process = asyncio.subprocess.Process
Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(tmp_path: Path, engine: TestEngine) -> AsyncIterator[Start]:
    processes: list[Process] = []

    async def start(script: str, lease_s: float = 0.0, count: int = 1) -> Process:
        arguments = (str(_CONTAINED_ANT), str(tmp_path / "home"), engine.url, script, str(lease_s), str(count))
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
        await process.wait()
    await until(lambda: not running(engine) and not running(engine, "service"))
    # What was being made when a test ended belongs to the next ant of the id, which does not come.
    for container in engine.containers():
        engine.call("DELETE", f"/containers/{container['Id']}?force=1")
    for network in engine.networks():
        engine.call("DELETE", f"/networks/{network['Id']}")


def running(engine: TestEngine, role: str = "main") -> list[Any]:
    return [each for each in engine.containers(f"formicary.role={role}") if each["State"] == "running"]


async def test_containers_and_network_of_a_killed_ant_are_gone_at_once(start: Start, engine: TestEngine) -> None:
    ant = await start("sleep 300")
    await until(lambda: running(engine) and running(engine, "service"))
    assert len(engine.networks()) == 1

    began_s = time.monotonic()
    ant.kill()
    await until(lambda: not engine.containers() and not engine.networks())

    assert time.monotonic() - began_s < 30


async def test_a_container_that_is_being_made_when_its_ant_dies_never_starts_and_goes_with_the_next_ant(
    start: Start, engine: TestEngine
) -> None:
    ant = await start("sleep 300")
    await until(engine.containers)
    ant.kill()
    await ant.wait()
    await until(lambda: not any(each["State"] == "running" for each in engine.containers()))
    left = {each["Id"] for each in engine.containers()}

    await _says(await start("sleep 300"), b"ready")

    assert left.isdisjoint(each["Id"] for each in engine.containers())


async def test_what_outlived_ant_and_warden_is_removed_before_the_next_ant_of_the_id_is_ready(
    start: Start, engine: TestEngine
) -> None:
    former = await start("sleep 300")
    await until(lambda: running(engine))
    warden = _warden_of(former.pid)
    os.kill(warden, signal.SIGSTOP)
    former.kill()
    os.kill(warden, signal.SIGKILL)
    await former.wait()
    left = {each["Id"] for each in running(engine)}
    assert left

    await _says(await start("sleep 300"), b"ready")

    assert left.isdisjoint(each["Id"] for each in engine.containers())


async def test_containers_of_a_stopped_ant_are_gone_when_its_lease_ends(start: Start, engine: TestEngine) -> None:
    ant = await start("sleep 300", lease_s=3.0)
    await until(lambda: running(engine))

    ant.send_signal(signal.SIGSTOP)
    await until(lambda: not engine.containers())

    async with asyncio.timeout(40):
        assert await ant.wait() == -signal.SIGKILL


async def test_an_ant_with_many_containers_that_was_stopped_too_long_lives_on_without_them(
    start: Start, engine: TestEngine
) -> None:
    ant = await start("sleep 300", lease_s=4.0, count=_MANY)
    await _says(ant, b"ready")
    await until(lambda: len(running(engine)) == _MANY)

    ant.send_signal(signal.SIGSTOP)
    await until(lambda: len(running(engine)) < _MANY)
    ant.send_signal(signal.SIGCONT)

    await _says(ant, b"over")
    assert engine.containers() == []
    assert ant.returncode is None


def made(engine: TestEngine, name: str, **labels: str) -> str:
    config = {"Image": IMAGE, "Cmd": ["sleep", "300"], "Labels": {"formicary.job": "j", **labels}}
    kind = {"Content-Type": "application/json"}
    answer = engine.call("POST", f"/containers/create?name={name}", json.dumps(config).encode(), **kind)
    engine.call("POST", f"/containers/{answer['Id']}/start")
    return str(answer["Id"])


async def test_the_reaper_removes_what_has_outlived_its_limit_and_nothing_else(engine: TestEngine) -> None:
    expired = made(engine, "expired", **{manifest.LIMIT_LABEL: "0"})
    young = made(engine, "young", **{manifest.LIMIT_LABEL: "3600"})
    foreign = made(engine, "foreign")
    client = Engine(engine.url)
    try:
        await asyncio.sleep(1.1)  # the engine counts whole seconds
        assert await Reaper(client).sweep() == [expired]
        assert {each["Id"] for each in engine.containers()} == {young, foreign}
    finally:
        await client.close()
        for container in (young, foreign):
            engine.call("DELETE", f"/containers/{container}?force=1")


async def test_a_life_is_ended_and_its_neighbours_live_on(engine: TestEngine) -> None:
    for number in range(3):
        made(engine, f"one-{number}", **{manifest.ANT_LABEL: "ant-1@1"})
    other = made(engine, "other", **{manifest.ANT_LABEL: "ant-1@12"})
    try:
        assert await asyncio.to_thread(remove_containers, engine.url, ["ant-1@1"], 5.0)
        assert [each["Id"] for each in engine.containers()] == [other]
    finally:
        engine.call("DELETE", f"/containers/{other}?force=1")


def test_an_engine_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    assert not remove_containers(f"unix://{tmp_path}/none.sock", ["ant-1@1"], 0.1)


async def _says(ant: Process, word: bytes) -> None:
    assert ant.stdout is not None
    async with asyncio.timeout(60):
        assert await ant.stdout.readline() == word + b"\n"


def _warden_of(ant_pid: int) -> int:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parent = int((stat_fields(entry.name) or ["", "0"])[1])
        if b"ant/warden.py" in command and parent == ant_pid:
            return int(entry.name)
    raise AssertionError("no warden")
