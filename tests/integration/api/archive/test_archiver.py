"""Output moves to the artifact store: once, and whatever dies on the way."""

import asyncio
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from formicary.clock import SystemClock
from formicary.ids import JobId, new_job_id
from formicary.queen.log_archiver import PREFIX, LogArchiver
from formicary.queen.log_reader import LogSources
from formicary.testing.front import Api, QueenFront
from tests.integration.api.archive.conftest import (
    Leader,
    append_much,
    chunk,
    lines_left,
    objects,
    texts,
)

DYING_ARCHIVER = Path(__file__).with_name("dying_archiver.py")


async def test_lines_that_come_again_are_not_stored_again(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver
) -> None:
    await front.logs.append([chunk(job_id, 0, [1, 2, 3, 6])])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    await front.logs.append([chunk(job_id, 0, [1, 2, 3]), chunk(job_id, 0, [4, 5, 6, 7]), chunk(job_id, 1, [1])])
    await front.logs.append([chunk(job_id, 0, [4, 5, 6, 7])])

    assert await texts(api, job_id) == ["0/1/1", "0/1/2", "0/1/3", "0/1/6", "0/1/4", "0/1/5", "0/1/7", "1/1/1"]
    assert await archiver.run_once() == 4
    assert len(await objects(front)) == 2
    await front.logs.append([chunk(job_id, 0, range(1, 8)), chunk(job_id, 1, [1, 2])])
    assert len(await texts(api, job_id)) == 9


async def test_lines_of_a_running_job_stay(api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.start_job(job_id)

    assert await archiver.run_once() == 0
    await front.end_job(job_id, "CANCELLED")
    assert await archiver.run_once() == 1


async def test_lines_of_a_job_that_has_just_ended_stay(
    front: QueenFront, job_id: JobId, sources: LogSources, leader: Leader
) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.end_job(job_id, "COMPLETED")
    archiver = LogArchiver(sources, leader, SystemClock(), after_s=60.0)

    assert await archiver.run_once() == 0
    await front.execute("UPDATE jobs SET finished_at = now() - interval '61 s'")
    assert await archiver.run_once() == 1


async def test_many_jobs_are_looked_through(front: QueenFront, api: Api, job_id: JobId, archiver: LogArchiver) -> None:
    job_ids = [JobId((await api.submit())["id"]) for _ in range(30)]
    await front.logs.append([chunk(job_id, 0, [1, 2]) for job_id in job_ids])
    for ended in job_ids[::2]:
        await front.end_job(ended, "COMPLETED")

    assert await archiver.run_once() == 30
    assert await lines_left(front) == 30


async def test_a_job_whose_output_cannot_be_stored_holds_up_no_other(
    front: QueenFront, api: Api, job_id: JobId, archiver: LogArchiver
) -> None:
    other = JobId((await api.submit())["id"])
    for ended in (job_id, other):
        await front.logs.append([chunk(ended, 0, [1])])
        await front.end_job(ended, "COMPLETED")
    folder = front.artifacts._root / "logs" / job_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("no folder")

    assert await archiver.run_once() == 1
    assert await lines_left(front) == 1
    folder.unlink()
    assert await archiver.run_once() == 1


async def test_only_the_leader_moves_lines(
    api: Api, front: QueenFront, job_id: JobId, archiver: LogArchiver, leader: Leader
) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.end_job(job_id, "COMPLETED")
    epoch, leader.epoch = leader.epoch, None
    assert await archiver.run_once() == 0

    assert epoch is not None
    leader.epoch = epoch - 1  # another queen leads, and this one does not know it yet
    assert await archiver.run_once() == 0
    assert await objects(front) == []
    assert await texts(api, job_id) == ["0/1/1"]


async def test_two_leaders_at_once_move_each_line_once(
    api: Api, front: QueenFront, job_id: JobId, sources: LogSources, leader: Leader
) -> None:
    await append_much(front, job_id)
    await front.end_job(job_id, "COMPLETED")
    everything = await texts(api, job_id)
    archivers = [LogArchiver(sources, leader, SystemClock(), 0.0, part_bytes=1) for _ in range(3)]
    moved = sum(await asyncio.gather(*(archiver.run_once() for archiver in archivers)))

    assert moved == len(everything)
    assert await texts(api, job_id) == everything
    assert await lines_left(front) == 0


@pytest.mark.parametrize("death", ["after put", "after commit"])
async def test_kill_9_in_the_middle_loses_nothing_and_shows_nothing_twice(
    api: Api,
    front: QueenFront,
    job_id: JobId,
    archiver: LogArchiver,
    leader: Leader,
    server_url: str,
    tmp_path: Path,
    death: str,
) -> None:
    await append_much(front, job_id)
    await front.end_job(job_id, "COMPLETED")
    everything = await texts(api, job_id)
    url = server_url.replace("/postgres", f"/{await database_name(front)}")
    arguments = (str(DYING_ARCHIVER), url, str(tmp_path / "artifacts"), str(leader.epoch), death)
    dying = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    assert await dying.wait() == -signal.SIGKILL

    assert len(await objects(front)) == 1
    assert await lines_left(front) == 4_000
    assert await texts(api, job_id) == everything
    assert await texts(api, job_id, "tail=10") == everything[-10:]
    await archiver.run_once()
    assert await lines_left(front) == 0
    assert await texts(api, job_id) == everything
    assert len(await objects(front)) == (2 if death == "after put" else 1)


async def database_name(front: QueenFront) -> str:
    rows = await front.database.fetch("SELECT current_database() AS name")
    return str(rows[0]["name"])


async def test_what_a_dead_leader_left_is_deleted_by_the_next_one(
    front: QueenFront,
    api: Api,
    job_id: JobId,
    archiver: LogArchiver,
    sources: LogSources,
    leader: Leader,
    tmp_path: Path,
) -> None:
    await front.logs.append([chunk(job_id, 0, [1])])
    await front.end_job(job_id, "COMPLETED")
    await archiver.run_once()
    kept = await objects(front)
    empty = tmp_path / "empty"
    empty.touch()
    assert leader.epoch is not None
    names = {
        "orphan": f"{PREFIX}{job_id}/1-{leader.epoch - 1}-abcd.jsonl.zst",
        "being written": f"{PREFIX}{job_id}/2-{leader.epoch}-abcd.jsonl.zst",
        "of a deleted job": f"{PREFIX}{new_job_id()}/1-{leader.epoch - 1}-abcd.jsonl.zst",
    }
    for name in names.values():
        await front.artifacts.put(name, empty)

    assert await archiver.delete_orphans(leader.epoch) == 0
    for is_alone, count in ((False, 0), (True, 2)):
        alone = LogArchiver(sources, leader, SystemClock(), 0.0, is_alone=partial(answer, is_alone))
        assert await alone.delete_orphans(leader.epoch) == count
    assert sorted(await objects(front)) == sorted([*kept, names["being written"]])
    assert await texts(api, job_id) == ["0/1/1"]


async def answer(value: bool) -> bool:
    return value


async def test_lines_that_come_when_their_job_is_deleted_go_too(
    front: QueenFront, api: Api, job_id: JobId, archiver: LogArchiver
) -> None:
    other = JobId((await api.submit())["id"])
    await front.execute("DELETE FROM jobs WHERE id = $1::uuid", job_id)
    await front.logs.append([chunk(job_id, 0, [2]), chunk(other, 0, [1])])
    await archiver.run_once()

    assert await lines_left(front) == 1
    assert await texts(api, other) == ["0/1/1"]
