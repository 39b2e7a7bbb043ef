"""A remote worker: connects to an ant, offers methods, does tasks. Needs Python 3.11 and aiohttp, nothing of Formicary.

What is said over the connection is in docs/executors/websocket.md. ``count_words.py`` shows how a worker is made.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

#: Codes with which an ant closes a connection that it will not take either the next time.
REFUSED = {4400, 4401}
#: However long a file takes, as long as something of it comes.
STORE_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=60.0)
#: Files come in pieces of at most this size.
CHUNK_BYTES = 1024 * 1024
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

    def __init__(
        self, message: dict[str, Any], socket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession
    ) -> None:
        self.id: str = message["task"]
        self.job_id: str = message["job_id"]
        self.attempt: int = message["attempt"]
        self.payload: Any = message["payload"]
        #: Artifacts of earlier tasks, by name.
        self.inputs: dict[str, dict[str, Any]] = {each["name"]: each for each in message.get("inputs", [])}
        self._socket = socket
        self._session = session
        #: Who waits for word where an artifact belongs, by name.
        self.uploads: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def fetch(self, name: str, target: Path) -> None:
        """Gets an artifact of an earlier task, from the artifact store itself, and checks it.

        Raises:
            TaskFailedError: there is none, or it cannot be had.
        """
        about = self.inputs.get(name)
        if about is None or about["url"] is None:
            raise TaskFailedError(f"there is no {name}" if about is None else f"{name} has no URL")
        digest = hashlib.sha256()
        async with self._session.get(URL(about["url"], encoded=True), timeout=STORE_TIMEOUT) as answer:
            if answer.status != 200:
                raise TaskFailedError(f"{name} cannot be had: {answer.status} {answer.reason}")
            with target.open("wb") as file:
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != about["sha256"]:
            raise TaskFailedError(f"{name} arrived damaged")
        await asyncio.to_thread(target.chmod, 0o755 if about["is_executable"] else 0o644)

    async def deliver(self, source: Path, name: str) -> None:
        """Leaves a file as an artifact of the task: puts it into the artifact store itself.

        Raises:
            TaskFailedError: it is not taken.
        """
        with source.open("rb") as file:
            sha256 = (await asyncio.to_thread(hashlib.file_digest, file, "sha256")).hexdigest()
            size, is_executable = file.tell(), os.access(source, os.X_OK)
            self.uploads[name] = asyncio.get_running_loop().create_future()
            about = {"name": name, "sha256": sha256, "size_bytes": size, "is_executable": is_executable}
            await self._socket.send_json({"type": "artifact", "task": self.id, **about})
            upload = await self.uploads[name]
            if upload["refusal"] is not None:
                raise TaskFailedError(upload["refusal"])
            if upload["url"] is None:
                return  # the store has it already
            file.seek(0)
            url, headers = URL(upload["url"], encoded=True), upload["headers"]
            async with self._session.put(url, data=file, headers=headers, timeout=STORE_TIMEOUT) as answer:
                if answer.status != 200:
                    raise TaskFailedError(f"{name} is not taken: {answer.status} {answer.reason}")

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
        self._tasks: dict[str, Task] = {}
        self._is_draining = False
        #: Set while the ant gives tasks to this worker.
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Returns when the worker was drained.

        Raises:
            WorkerRefusedError: the ant does not want it, or the address is none.
        """
        pause_s = FIRST_PAUSE_S
        while not self._is_draining:
            try:
                await self._serve()
                pause_s = FIRST_PAUSE_S
            except aiohttp.InvalidURL as error:
                raise WorkerRefusedError(
                    f"{self._url!r} is no address of an ant, such as ws://host/v1/workers"
                ) from error
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
                    self._take(frame.json(), socket, session)
            finally:
                self._socket = None
                self.registered.clear()
                for running in self._running.values():
                    running.cancel()  # these attempts are lost
            if socket.close_code in REFUSED:
                raise WorkerRefusedError(f"{self._url} closed the connection with code {socket.close_code}")

    def _take(
        self, message: dict[str, Any], socket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession
    ) -> None:
        match message["type"]:
            case "registered":
                self.registered.set()
                print("registered", flush=True)
            case "task":
                task = Task(message, socket, session)
                self._tasks[task.id] = task
                self._running[task.id] = asyncio.create_task(self._do(task, message["method"], socket))
            case "upload" if message["task"] in self._tasks:
                if (waiting := self._tasks[message["task"]].uploads.get(message["name"])) and not waiting.done():
                    waiting.set_result(message)
            case "cancel" if message["task"] in self._running:
                self._running[message["task"]].cancel()
            case "error":
                print(f"{message['code']}: {message['message']}", flush=True)

    async def _do(self, task: Task, method: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            result = await self._verdict(task, self._methods[method])
        finally:
            del self._running[task.id], self._tasks[task.id]
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
