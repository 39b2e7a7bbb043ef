"""A remote worker: connects to an ant, offers methods, does tasks. Needs Python 3.11 and aiohttp, nothing of Formicary.

What is said over the connection is in docs/executors/websocket.md. ``count_words.py`` shows how a worker is made.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

#: Codes with which an ant closes a connection that it will not take either the next time.
REFUSED = {4400, 4401}
#: Pauses between attempts to connect, in seconds: doubled from the first to the last.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0


class TaskFailedError(Exception):
    """Raised by a method: the task ends FAILED with this exit code."""

    def __init__(self, message: str, exit_code: int = 1, outputs: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.outputs = outputs or {}


class WorkerRefusedError(Exception):
    """The ant does not want this worker: a wrong token, or a registration that it does not understand."""


class Task:
    """One attempt of a task. ``id`` is unique for ever: a key under which what is done twice is done once."""

    def __init__(self, message: dict[str, Any], socket: aiohttp.ClientWebSocketResponse) -> None:
        self.id: str = message["task"]
        self.job_id: str = message["job_id"]
        self.attempt: int = message["attempt"]
        self.payload: Any = message["payload"]
        self._socket = socket

    async def log(self, text: str, stream: str = "stdout") -> None:
        """Adds lines to the task's log; waits while the ant takes no more."""
        await self._socket.send_json({"type": "log", "task": self.id, "stream": stream, "text": text})


#: Takes a task and returns its outputs. It is cancelled when the task is, and when the connection is lost.
Method = Callable[[Task], Awaitable[dict[str, Any] | None]]


class Worker:
    """Serves one ant until it is drained; connects again when the connection is lost."""

    def __init__(
        self,
        url: str,
        methods: dict[str, Method],
        *,
        name: str = "worker",
        token: str | None = None,
        tags: tuple[str, ...] = (),
        slots: int = 1,
    ) -> None:
        self._url = url
        self._methods = methods
        self._about = {"name": name, "token": token, "methods": list(methods), "tags": list(tags), "slots": slots}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._running: dict[str, asyncio.Task[None]] = {}
        self._is_draining = False
        #: Set while the ant gives tasks to this worker.
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Returns when the worker was drained.

        Raises:
            WorkerRefusedError: the ant does not want it.
        """
        pause_s = FIRST_PAUSE_S
        while not self._is_draining:
            try:
                await self._serve()
                pause_s = FIRST_PAUSE_S
            except (aiohttp.ClientError, OSError) as error:
                print(f"{error}; trying again in {pause_s:g} s", flush=True)
            if not self._is_draining:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def drain(self) -> None:
        """Takes no more tasks, finishes those it has, and disconnects."""
        self._is_draining = True
        if self._socket is None:
            return
        await self._socket.send_json({"type": "drain"})
        if self._running:
            await asyncio.wait(set(self._running.values()))
        await self._socket.close()

    async def _serve(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, heartbeat=30.0, max_msg_size=0, compress=0) as socket,
        ):
            await socket.send_json({"type": "register", "protocol": 1, **self._about})
            self._socket = socket
            try:
                async for frame in socket:
                    self._take(frame.json(), socket)
            finally:
                self._socket = None
                self.registered.clear()
                for running in self._running.values():
                    running.cancel()  # these attempts are lost
            if socket.close_code in REFUSED:
                raise WorkerRefusedError(f"{self._url} closed the connection with code {socket.close_code}")

    def _take(self, message: dict[str, Any], socket: aiohttp.ClientWebSocketResponse) -> None:
        match message["type"]:
            case "registered":
                self.registered.set()
                print("registered", flush=True)
            case "task":
                self._running[message["task"]] = asyncio.create_task(self._do(message, socket))
            case "cancel" if message["task"] in self._running:
                self._running[message["task"]].cancel()
            case "error":
                print(f"{message['code']}: {message['message']}", flush=True)

    async def _do(self, message: dict[str, Any], socket: aiohttp.ClientWebSocketResponse) -> None:
        task = Task(message, socket)
        try:
            result = await self._verdict(task, self._methods[message["method"]])
        finally:
            del self._running[task.id]
        with suppress(ConnectionError):  # then the attempt is lost, as the ant knows
            await socket.send_json({"type": "result", "task": task.id, **result})

    async def _verdict(self, task: Task, method: Method) -> dict[str, Any]:
        try:
            return {"status": "COMPLETED", "outputs": await method(task) or {}}
        except TaskFailedError as error:
            verdict = {"exit_code": error.exit_code, "outputs": error.outputs}
            return {"status": "FAILED", "message": str(error), **verdict}
        except asyncio.CancelledError:
            return {"status": "FAILED", "message": "cancelled"}
        except Exception as error:  # noqa: BLE001 - a defect of a method must not end the worker
            return {"status": "FAILED", "message": f"{type(error).__name__}: {error}"}
