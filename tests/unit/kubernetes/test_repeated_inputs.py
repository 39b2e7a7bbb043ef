"""Inputs that are given again, since the answer to the call before was lost: nothing changes once the script began."""

import asyncio
import hashlib
import subprocess
from asyncio.subprocess import Process
from pathlib import Path

import pytest
from aiohttp import web

from executors.kubernetes.cluster import Cluster
from executors.kubernetes.direct import _FETCH
from executors.kubernetes.transfer import _PUT, Transfer
from executors.kubernetes.volumes import HOME_PATH
from tests.unit.kubernetes.conftest import ApiServer, end

#: Larger than what waits in pipes: half of it goes in only when somebody reads it.
GIVEN = "given" * 100_000


class Container:
    """The folders of a container, and the shell text that exec runs there."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self.input = self.work / "input"
        (folder / "input").write_text(GIVEN)
        self._archive = subprocess.run(["tar", "-cf-", "-C", folder, "input"], check=True, capture_output=True).stdout

    @property
    def has_begun(self) -> bool:
        return (self.home / "in").exists()

    async def call(self, script: str, *words: str) -> Process:
        """Begins a call that gives inputs."""
        text = script.replace(HOME_PATH, str(self.home))
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec("sh", "-c", text, "call", *words, stdin=pipe, stderr=pipe)

    async def begin_put(self) -> Process:
        """Begins a call and gives it half of the archive; returns when it is at it."""
        process = await self.call(_PUT, str(len(self._archive)), str(self.work))
        assert process.stdin is not None
        process.stdin.write(self._archive[: len(self._archive) // 2])
        await process.stdin.drain()
        return process

    async def end_put(self, process: Process) -> int:
        """Gives the rest of the archive and returns the exit code."""
        await process.communicate(self._archive[len(self._archive) // 2 :])
        return process.returncode or 0


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


async def test_inputs_that_are_there_already_are_taken_and_left_out(container: Container) -> None:
    assert await container.end_put(await container.begin_put()) == 0
    assert container.has_begun
    container.input.write_text("changed by the script")

    assert await container.end_put(await container.begin_put()) == 0

    assert container.input.read_text() == "changed by the script"


async def test_of_two_calls_at_a_time_the_later_one_lets_the_script_begin(container: Container) -> None:
    former = await container.begin_put()
    later = await container.begin_put()

    assert await container.end_put(former) != 0
    assert not container.has_begun
    assert await container.end_put(later) == 0
    assert container.has_begun


async def test_a_call_that_was_overtaken_is_made_again(server: ApiServer, connection: Cluster, tmp_path: Path) -> None:
    codes = [6, 0]

    async def end_later(socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await end(socket, codes.pop(0))

    server.command = end_later
    (tmp_path / "work").mkdir()

    await Transfer(connection, "x").put(tmp_path / "work", "/w")

    assert codes == []


@pytest.mark.parametrize("is_next", [True, False])
async def test_a_big_file_that_comes_after_the_next_call_is_not_put_in_place(
    container: Container, unused_tcp_port: int, is_next: bool
) -> None:
    asked, answering = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        await answering.wait()
        return web.Response(body=b"given")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    digest = hashlib.sha256(b"given").hexdigest()
    former = await container.call(_FETCH, str(container.work), digest, "-", "input")
    assert former.stdin is not None
    former.stdin.write(f'url = "http://127.0.0.1:{unused_tcp_port}/"\n\n'.encode())
    await asked.wait()

    if is_next:
        assert await container.end_put(await container.begin_put()) == 0
        container.input.write_text("changed by the script")
    answering.set()
    await former.communicate()
    await runner.cleanup()

    assert (former.returncode == 0) is not is_next
    assert container.input.read_text() == ("changed by the script" if is_next else "given")
    assert list(container.work.iterdir()) == [container.input]
