"""Remote workers for the tests: the reference worker of docs/examples, and a peer that says what it is told."""

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from executors.base import Outcome, Run
from executors.specs import ShellSpec, WebsocketSpec
from executors.testing import Specimen
from executors.websocket import WebsocketExecutor

_REFERENCE = Path(__file__).parents[3] / "docs" / "examples" / "workers" / "python" / "worker.py"
OpenExecutor = Callable[..., Awaitable[WebsocketExecutor]]
#: Lines of 64 KiB each.
BIG_LINES = 64
#: Work for a peer, and how the ant names the first task of it.
WORK = WebsocketSpec(worker_method="work", payload={"n": 1})
TASK = "job-1/task/1"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("reference_worker", _REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load()


class Peer:
    """A worker by hand: sends and receives single messages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: object) -> None:
        await self.socket.send_json(message)

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(40):
            message: dict[str, Any] = await self.socket.receive_json()
        return message

    async def closed(self) -> int | None:
        """Returns the code with which the ant closes the connection."""
        async with asyncio.timeout(40):
            while not self.socket.closed:
                await self.socket.receive()
        return self.socket.close_code


class Crew:
    """All workers of one test."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession()
        self._running: list[asyncio.Task[None]] = []

    async def hire(self, executor: WebsocketExecutor, methods: dict[str, Any], slots: int) -> None:
        """Connects the reference worker."""
        worker = reference.Worker(url_of(executor), methods, slots=slots)
        self._running.append(asyncio.create_task(worker.run()))
        await worker.registered.wait()

    async def dial(self, executor: WebsocketExecutor, **options: Any) -> Peer:
        """Connects a peer, which has said nothing yet."""
        return Peer(await self._session.ws_connect(url_of(executor), **options))

    async def peer(self, executor: WebsocketExecutor, *methods: str, **about: object) -> Peer:
        """Connects and registers a peer."""
        peer = await self.dial(executor)
        await peer.say(type="register", methods=methods or ["work"], **about)
        assert (await peer.hear())["type"] == "registered"
        return peer

    async def close(self) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._session.close()


async def end_of(executor: WebsocketExecutor, run: Run) -> Outcome:
    """Waits for the end of an attempt and cleans up after it."""
    async with asyncio.timeout(40):
        outcome = await executor.wait(run)
    await executor.cleanup(run)
    return outcome


async def complete(peer: Peer, task: str, **verdict: object) -> None:
    """Has a peer say that a task is completed, or what else the verdict is."""
    await peer.say(type="result", task=task, **{"status": "COMPLETED", **verdict})


def url_of(executor: WebsocketExecutor) -> str:
    return f"ws://127.0.0.1:{executor.port}/v1/workers"


async def _succeed(task: Any) -> dict[str, Any]:
    return {"payload": task.payload}


async def _fail(task: Any) -> None:
    raise reference.TaskFailedError("it failed with exit code 3", exit_code=3)


async def _talk(task: Any) -> None:
    await task.log("hello")


async def _last(task: Any) -> None:
    await asyncio.Event().wait()


async def _ignore_cancel(task: Any) -> None:
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await task.log("not now")


async def _talk_big(task: Any) -> None:
    for _ in range(BIG_LINES):
        await task.log("x" * 65535)


async def remote_specimen(executor: WebsocketExecutor, crew: Crew) -> Specimen:
    """Returns the executor with a worker that does all that the suite asks for."""
    methods = {
        "succeed": _succeed,
        "fail": _fail,
        "talk": _talk,
        "last": _last,
        "ignore-cancel": _ignore_cancel,
        "talk-big": _talk_big,
    }
    await crew.hire(executor, methods, slots=100)
    return Specimen(
        executor=executor,
        success=WebsocketSpec(worker_method="succeed"),
        failure=WebsocketSpec(worker_method="fail"),
        talking=WebsocketSpec(worker_method="talk"),
        said=b"hello\n",
        lasting=WebsocketSpec(worker_method="last"),
        stubborn=WebsocketSpec(worker_method="ignore-cancel"),
        refused=ShellSpec(),
        big=WebsocketSpec(worker_method="talk-big"),
        big_bytes=BIG_LINES * 65536,
    )
