"""The front of a queen for tests: manager, server and log writer over a real database; no scheduler, no supervisor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from brokers.registry import make_broker
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.ids import JobId
from formicary.model.jobs import AntView
from formicary.queen.api.server import ApiServer
from formicary.queen.log_reader import LogSources
from formicary.queen.logs import LogWriter
from formicary.queen.manager.contracts import Stores, Surroundings
from formicary.queen.manager.manager import Manager
from formicary.queen.watch import JobWatch, Signals
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.jobs import JobStore
from formicary.store.log_parts import LogPartStore
from formicary.store.logs import LogStore
from formicary.store.rows import JobRecord

SHARDS = 16

TWO_TASKS = """
job_type: two
required_params: [region]
labels: {team: data}
priority: 3
tasks:
  - {task_type: first, method: SHELL, script: ["true"]}
  - {task_type: second, method: SHELL, dependencies: [first], script: ["true"]}
"""


class RecordingWake:
    """Remembers what was woken."""

    def __init__(self) -> None:
        self.submitted_count = 0
        self.shards: list[int] = []

    def submitted(self, startable: Sequence[JobRecord] = ()) -> None:
        """Counts a call."""
        self.submitted_count += 1

    def command(self, shard: int) -> None:
        """Keeps the shard."""
        self.shards.append(shard)


class Ants:
    """A directory of ants that a test fills."""

    def __init__(self) -> None:
        self.listed: list[AntView] = []

    def views(self) -> list[AntView]:
        """Returns what was put in."""
        return self.listed


class QueenFront:
    """A queen's front: manager, server, and the stores behind them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.broker = make_broker("memory://")
        self.bus = Bus(self.broker, "test", SystemClock())
        self.logs = LogStore(database)
        self.artifacts = LocalStore(folder / "artifacts")
        self.signals = Signals()
        self.watch = JobWatch()
        self.wake = RecordingWake()
        self.ants = Ants()
        self.writer = LogWriter(self.bus, self.logs, self.signals, SystemClock(), "test")
        self.manager = self.make_manager()
        self.server = ApiServer(self.manager, ("127.0.0.1", 0))

    def make_manager(self) -> Manager:
        """Another queen's manager over the same database."""
        stores = Stores(
            database=self.database,
            definitions=DefinitionStore(self.database),
            jobs=JobStore(self.database),
            commands=CommandStore(self.database),
            logs=LogSources(self.logs, LogPartStore(self.database), self.artifacts),
            artifacts=Blobs(self.artifacts),
        )
        around = Surroundings(
            clock=SystemClock(),
            wake=self.wake,
            watch=self.watch,
            log_signals=self.signals,
            log_backlog=self.writer,
            ants=self.ants,
        )
        return Manager(stores, around, SHARDS)

    async def start(self) -> None:
        """Serves."""
        await self.broker.open()
        await self.artifacts.open()
        await self.writer.start()
        await self.server.start()

    async def stop(self) -> None:
        """Stops all but the database."""
        await self.server.stop()
        await self.writer.stop()
        await self.manager.close()
        await self.broker.close()

    async def execute(self, sql: str, *values: object) -> None:
        """Changes rows as an owner would."""
        async with self.database.connection() as connection:
            await connection.execute(sql, *values)

    async def end_job(self, job_id: str, state: str) -> None:
        """Ends a job as its owner would, and says so."""
        await self.execute("UPDATE jobs SET state = $2, finished_at = now() WHERE id = $1::uuid", job_id, state)
        self.watch.ended(JobId(job_id))

    async def start_job(self, job_id: str) -> None:
        """Starts a job as its owner would."""
        await self.execute("UPDATE jobs SET state = 'EXECUTING', started_at = now() WHERE id = $1::uuid", job_id)

    async def add_task(self, job_id: str, task_no: int, state: str, artifacts: str | None = None) -> None:
        """Writes the row of a task that ran once."""
        await self.execute(
            "INSERT INTO tasks (job_id, task_no, state, attempt, job_attempt, retries_used, polls_used, ants_lost, "
            "is_excepted, epoch, incarnation, exit_code, outputs, artifacts, started_at, finished_at) "
            "VALUES ($1::uuid, $2, $3, 1, 1, 0, 0, 0, false, 1, 'ant-1@abc', 0, $5, $4, now(), now())",
            job_id,
            task_no,
            state,
            artifacts,
            '{"row_count": 3}',
        )


class Api:
    """The routes over one keep-alive session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Returns status and JSON of an answer; every error must be a problem document."""
        async with self.session.request(method, path, **options) as response:
            document = await response.json(content_type=None)
            if response.status >= 400:
                assert response.content_type == "application/problem+json"
                assert {"type", "title", "status", "detail", "code"} <= set(document)
                assert document["status"] == response.status
            return response.status, document

    async def apply(self, text: str) -> dict[str, Any]:
        """Uploads a definition."""
        status, document = await self.call("POST", "/api/v1/definitions", data=text.encode())
        assert status in (200, 201), document
        return dict(document)

    async def submit(self, job_type: str = "two", **body: Any) -> dict[str, Any]:
        """Submits a job that must be accepted."""
        body.setdefault("params", {"region": "eu"})
        status, document = await self.call("POST", "/api/v1/jobs", json={"job_type": job_type, **body})
        assert status == 201, document
        return dict(document)
