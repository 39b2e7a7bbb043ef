"""Whoever reads output never notices that it moves to the artifact store."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from formicary.artifacts.base import ArtifactMissingError
from formicary.artifacts.local import LocalStore
from formicary.cli.client import Client
from formicary.clock import SystemClock
from formicary.errors import UnavailableError
from formicary.ids import JobId
from formicary.queen.log_archiver import LogArchiver
from formicary.queen.log_reader import LogReader, LogSources, Wanted
from formicary.store.log_parts import LogPart, LogPartStore
from formicary.store.logs import LogRow, LogStore
from formicary.testing.front import Api, QueenFront
from tests.integration.api.archive.conftest import (
    JOBS,
    Leader,
    append_much,
    chunk,
    lines_left,
    objects,
    read_log,
    texts,
)

#: Every way to ask; ``AFTER`` stands for the arrival of a line in the middle.
QUERIES = (
    "",
    "task_type=first",
    "task_type=second&attempt=2",
    "attempt=9",
    "tail=1",
    "tail=700",
    "tail=1500&task_type=second",
    "tail=0",
    "tail=100000",
    "limit=3",
    "limit=1300&task_type=second",
    "after=AFTER",
    "after=AFTER&limit=10&task_type=first",
    "tail=50&limit=20",
    "follow=1",
    "follow=1&tail=3&task_type=first",
    "follow=1&after=AFTER",
)


@pytest.mark.parametrize("part_bytes", [1, 20_000, 10**9])
async def test_every_reader_gets_the_same_before_and_after(
    api: Api, front: QueenFront, job_id: JobId, sources: LogSources, leader: Leader, part_bytes: int
) -> None:
    await append_much(front, job_id)
    await front.end_job(job_id, "COMPLETED")
    middle = (await read_log(api, job_id))[1700]["arrival"]
    queries = [query.replace("AFTER", str(middle)) for query in QUERIES]
    before = [await read_log(api, job_id, query) for query in queries]

    moved = await LogArchiver(sources, leader, SystemClock(), 0.0, part_bytes).run_once()

    assert moved == 4_000
    assert await lines_left(front) == 0
    assert [await read_log(api, job_id, query) for query in queries] == before
    assert len(before[0]) == 4_000


async def test_the_last_lines_are_those_of_the_database_too(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver
) -> None:
    await front.logs.append([chunk(job_id, 0, range(1, 101))])
    await front.end_job(job_id, "FAILED")
    await archiver.run_once()
    await front.logs.append([chunk(job_id, 0, range(101, 104))])

    assert await texts(api, job_id, "tail=2") == ["0/1/102", "0/1/103"]
    assert await texts(api, job_id, "tail=5") == [f"0/1/{seq}" for seq in range(99, 104)]
    assert await texts(api, job_id) == [f"0/1/{seq}" for seq in range(1, 104)]


async def test_a_job_can_be_read_page_by_page_while_its_lines_move(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver
) -> None:
    await append_much(front, job_id)
    await front.end_job(job_id, "COMPLETED")
    everything = await texts(api, job_id)
    found: list[str] = []
    after = 0
    while page := await read_log(api, job_id, f"after={after}&limit=999"):
        found += [line["text"] for line in page]
        after = page[-1]["arrival"]
        if len(found) > 1500:
            await archiver.run_once()

    assert found == everything


async def test_readers_and_writers_in_the_middle_of_it_lose_nothing(
    front: QueenFront, job_id: JobId, sources: LogSources, archiver: LogArchiver
) -> None:
    """Lines come, some of them twice and late, and move, while six readers read in their own time."""
    random = Random(7)
    await front.end_job(job_id, "COMPLETED")
    chunks = [chunk(job_id, number % 2, range(n, n + 20)) for number, n in enumerate(range(1, 4001, 20))]
    order = sorted(range(len(chunks)), key=lambda number: number + random.uniform(0, 10))
    is_done = asyncio.Event()

    async def write() -> None:
        for number in order:
            await front.logs.append([chunks[number], chunks[random.choice(order[: number + 1])]])
        is_done.set()

    async def move() -> None:
        while not is_done.is_set():
            await archiver.run_once()

    async def read() -> list[str]:
        reader, found = LogReader(sources, Wanted(job_id)), list[str]()
        while True:
            is_last = is_done.is_set()
            async for rows in reader.pages():
                found += [row.line for row in rows]
            if is_last:
                return found

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(6)]
        for work in (write(), move()):
            group.create_task(work)

    wanted = sorted(line.text for each in chunks for line in each.lines)
    assert all(sorted(reader.result()) == wanted for reader in readers)
    assert len(await objects(front)) > 1


@pytest.mark.parametrize("moves_before", [True, False])
@pytest.mark.parametrize("question", [1, 2, 3, 4])
async def test_lines_that_move_between_two_questions_are_not_missed(
    front: QueenFront, job_id: JobId, sources: LogSources, archiver: LogArchiver, question: int, moves_before: bool
) -> None:
    """The archiver does all its work before or after one of the first questions that a reader asks the database."""
    await front.logs.append([chunk(job_id, 0, range(1, 1501))])
    await front.end_job(job_id, "COMPLETED")
    count = 0

    async def move() -> None:
        nonlocal count
        count += 1
        if count == question:
            await archiver.run_once()

    class Lines(LogStore):
        async def read(
            self, job_id: JobId, task_no: int | None, attempt: int | None, after_arrival: int, limit: int
        ) -> list[LogRow]:
            if moves_before:
                await move()
            rows = await super().read(job_id, task_no, attempt, after_arrival, limit)
            if not moves_before:
                await move()
            return rows

    class Parts(LogPartStore):
        async def parts(self, job_id: JobId, after_arrival: int = 0) -> list[LogPart]:
            if moves_before:
                await move()
            parts = await super().parts(job_id, after_arrival)
            if not moves_before:
                await move()
            return parts

    watched = LogSources(Lines(front.database), Parts(front.database), sources.store)
    reader = LogReader(watched, Wanted(job_id))
    assert [row.seq async for rows in reader.pages() for row in rows] == list(range(1, 1501))
    assert await lines_left(front) == 0


async def test_a_few_lines_out_of_many_cost_a_few_reads(
    front: QueenFront, job_id: JobId, sources: LogSources, archiver: LogArchiver, counting: "CountingStore"
) -> None:
    for start in range(1, 40_001, 1000):
        await front.logs.append([chunk(job_id, 0, range(start, start + 1000), pad="x" * 100)])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    (part,) = await sources.parts.parts(job_id)
    reader = LogReader(sources._replace(store=counting), Wanted(job_id))
    await reader.seek_last(10)

    assert [row.seq async for rows in reader.pages() for row in rows] == list(range(39_991, 40_001))
    assert counting.count <= 4
    assert counting.size_bytes < part.size_bytes / 4


async def test_output_whose_object_is_gone_is_an_error_not_a_gap(
    front: QueenFront, job_id: JobId, sources: LogSources, archiver: LogArchiver
) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    await front.artifacts.delete((await objects(front))[0])

    with pytest.raises(ArtifactMissingError):
        [rows async for rows in LogReader(sources, Wanted(job_id)).pages()]


async def test_output_that_cannot_be_read_now_is_answered_503(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver, tmp_path: Path
) -> None:
    await front.logs.append([chunk(job_id, 0, range(1, 11))])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    make_unreadable(tmp_path / "artifacts" / (await objects(front))[0])
    for query in ("", "tail=3", "follow=1", "limit=2"):
        async with api.session.get(f"{JOBS}/{job_id}/logs?{query}") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert "the artifact store" in (await response.json())["detail"]


async def test_output_that_is_lost_is_answered_with_an_error_that_says_so(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver
) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    await front.artifacts.delete((await objects(front))[0])
    status, problem = await api.call("GET", f"{JOBS}/{job_id}/logs")
    assert (status, problem["code"]) == (500, "ERR_ARTIFACT")
    assert job_id in problem["detail"]


@pytest.mark.parametrize("query", ["", "follow=1"])
async def test_output_that_ends_in_the_middle_does_not_look_complete(
    api: Api, front: QueenFront, job_id: JobId, sources: LogSources, leader: Leader, tmp_path: Path, query: str
) -> None:
    await append_much(front, job_id)
    await front.end_job(job_id, "COMPLETED")
    await LogArchiver(sources, leader, SystemClock(), 0.0, part_bytes=1).run_once()
    make_unreadable(tmp_path / "artifacts" / (await objects(front))[-1])
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        await read_log(api, job_id, query)

    client = Client(front.server.address, None)
    with pytest.raises(UnavailableError):
        await asyncio.to_thread(lambda: list(client.lines(f"{JOBS}/{job_id}/logs", {})))


@pytest.mark.parametrize("query", ["tail=-1", "tail=x", "after=-1", "limit=0", "tail=1&after=1", "limit=1&follow=1"])
async def test_a_wrong_question_is_refused(api: Api, job_id: JobId, query: str) -> None:
    assert (await api.call("GET", f"{JOBS}/{job_id}/logs?{query}"))[0] == 422


def make_unreadable(path: Path) -> None:
    """Puts in an object's place what no store can read."""
    path.unlink()
    path.mkdir()


class CountingStore(LocalStore):
    """Counts the parts of contents that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.count = 0
        self.size_bytes = 0

    async def get_range(self, key: str, start: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        self.count += 1
        self.size_bytes += size_bytes
        async for piece in super().get_range(key, start, size_bytes):
            yield piece


@pytest.fixture
def counting(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "artifacts")
