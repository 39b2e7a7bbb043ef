"""A job that is being watched: in this process through the manager, or at a server through its API."""

import asyncio
import json
from collections.abc import AsyncIterator
from threading import Thread
from typing import Protocol

import msgspec

from formicary.cli.client import Client, quoted
from formicary.cli.results import Results
from formicary.model.jobs import ArtifactRef, JobView, LogLine, TaskView
from formicary.queen.manager.manager import Manager

_JOB = msgspec.json.Decoder(JobView)
_LINE = msgspec.json.Decoder(LogLine)
_JOBS = "/api/v1/jobs"


class JobSource(Protocol):
    """What progress needs of a job."""

    async def job(self) -> JobView:
        """Returns the job as it is."""
        ...

    async def wait(self, timeout_s: float) -> JobView:
        """Returns the job when it has ended, or as it is when ``timeout_s`` passed."""
        ...

    def lines(self) -> AsyncIterator[list[LogLine]]:
        """Yields lines of output until the job ended and all were yielded."""
        ...

    async def cancel(self) -> None:
        """Asks for a cancel."""
        ...

    def place_of(self, task: TaskView, artifact: ArtifactRef) -> str:
        """Returns where an artifact lies: a path or an address."""
        ...


class LocalJob:
    """A job of this process."""

    def __init__(self, manager: Manager, job_id: str, results: Results) -> None:
        self._manager = manager
        self._job_id = job_id
        self._results = results

    async def job(self) -> JobView:
        """Returns the job as it is."""
        return await self._manager.job(self._job_id)

    async def wait(self, timeout_s: float) -> JobView:
        """Returns the job when it has ended, or as it is when ``timeout_s`` passed."""
        return await self._manager.wait_for_end(self._job_id, timeout_s)

    async def lines(self) -> AsyncIterator[list[LogLine]]:
        """Yields lines of output until the job ended and all were yielded."""
        async for lines in await self._manager.follow_log(self._job_id, None, None):
            yield lines

    async def cancel(self) -> None:
        """Asks for a cancel."""
        await self._manager.cancel(self._job_id)

    def place_of(self, task: TaskView, artifact: ArtifactRef) -> str:
        """Returns the path of a link to it, or without a local store its address there."""
        return self._results.place_of(task, artifact)


class RemoteJob:
    """A job of a server."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._path = f"{_JOBS}/{quoted(job_id)}"

    async def job(self) -> JobView:
        """Returns the job as it is."""
        return _JOB.decode((await asyncio.to_thread(self._client.get, self._path)).body)

    async def wait(self, timeout_s: float) -> JobView:
        """Returns the job when it has ended, or as it is when ``timeout_s`` passed."""
        answer = await asyncio.to_thread(self._client.get, self._path, {"wait_s": timeout_s}, timeout_s)
        return _JOB.decode(answer.body)

    async def lines(self) -> AsyncIterator[list[LogLine]]:
        """Yields lines of output until the job ended and all were yielded."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

        def pump() -> None:
            end: Exception | None = None
            try:
                for line in self._client.lines(f"{self._path}/logs", {"follow": 1}):
                    loop.call_soon_threadsafe(queue.put_nowait, line)
            except Exception as error:  # noqa: BLE001 - carried over to the loop, which raises it
                end = error
            loop.call_soon_threadsafe(queue.put_nowait, end)

        Thread(target=pump, daemon=True).start()
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield [_LINE.decode(item)]

    async def cancel(self) -> None:
        """Asks for a cancel."""
        await asyncio.to_thread(self._client.post, f"{self._path}/cancel")

    def place_of(self, task: TaskView, artifact: ArtifactRef) -> str:
        """Returns the address at the server."""
        return f"{self._client.server}{self._path}/artifacts/{quoted(task.task_type)}/{artifact.name}"


async def submit_remote(client: Client, text: str, params: dict[str, object]) -> str:
    """Uploads a definition, submits a job of that version, and returns the job's id."""

    def exchange() -> str:
        saved = client.post("/api/v1/definitions", text.encode(), "application/yaml").json()
        body = {"job_type": saved["job_type"], "version": saved["version"], "params": params}
        return str(client.post(_JOBS, json.dumps(body).encode()).json()["id"])

    return await asyncio.to_thread(exchange)
