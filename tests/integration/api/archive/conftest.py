"""Lines of a job, and what moves them."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from formicary.clock import SystemClock
from formicary.events.logs import Line, LogChunk
from formicary.ids import JobId, QueenId
from formicary.queen.log_archiver import PREFIX, LogArchiver
from formicary.queen.log_reader import LogSources
from formicary.store.leases import LeaseStore
from formicary.store.log_parts import LogPartStore
from formicary.testing.front import TWO_TASKS, Api, QueenFront

JOBS = "/api/v1/jobs"
AT = datetime(2030, 1, 1, tzinfo=UTC)


class Leader:
    """The leadership, held in the epoch that the database says."""

    def __init__(self, epoch: int) -> None:
        self.epoch: int | None = epoch

    def leader_epoch(self) -> int | None:
        return self.epoch


@pytest.fixture
async def leader(front: QueenFront) -> Leader:
    (lease,) = await LeaseStore(front.database).take(["leader"], QueenId("q"), "q@1", 60.0)
    return Leader(lease.epoch)


@pytest.fixture
def sources(front: QueenFront) -> LogSources:
    return LogSources(front.logs, LogPartStore(front.database), front.artifacts)


@pytest.fixture
def archiver(sources: LogSources, leader: Leader) -> LogArchiver:
    return LogArchiver(sources, leader, SystemClock(), after_s=0.0)


@pytest.fixture
async def job_id(api: Api) -> JobId:
    await api.apply(TWO_TASKS)
    return JobId((await api.submit())["id"])


def chunk(job_id: JobId, task_no: int, seqs: Sequence[int], attempt: int = 1, pad: str = "") -> LogChunk:
    lines = tuple(Line(seq, "stdout", AT, f"{task_no}/{attempt}/{seq}{pad}") for seq in seqs)
    return LogChunk(job_id=job_id, task_no=task_no, attempt=attempt, lines=lines)


async def read_log(api: Api, job_id: JobId, query: str = "") -> list[dict[str, Any]]:
    async with asyncio.timeout(40), api.session.get(f"{JOBS}/{job_id}/logs?{query}") as response:
        assert response.status == 200, await response.text()
        return [json.loads(line) async for line in response.content]


async def texts(api: Api, job_id: JobId, query: str = "") -> list[str]:
    return [line["text"] for line in await read_log(api, job_id, query)]


async def lines_left(front: QueenFront) -> int:
    rows = await front.database.fetch("SELECT count(*) AS count FROM task_logs")
    return int(rows[0]["count"])


async def objects(front: QueenFront) -> list[str]:
    return [key async for key in front.artifacts.list(PREFIX)]


async def append_much(front: QueenFront, job_id: JobId) -> None:
    """Stores lines of two tasks, one of them with two attempts, mixed; several frames of them."""
    for start in range(1, 2001, 250):
        seqs = range(start, start + 250)
        await front.logs.append(
            [chunk(job_id, 0, seqs, pad="x" * 300), chunk(job_id, 1, seqs, 1 + start // 1000, pad="y" * 300)]
        )
