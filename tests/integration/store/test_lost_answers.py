"""What becomes of a commit whose answer never came: found by its mark, or made impossible."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from formicary.errors import UnavailableError
from formicary.ids import JobId, QueenId, new_job_id
from formicary.store.database import Database
from formicary.store.embedded import EmbeddedPostgres
from formicary.store.errors import FencedError, NotCommittedError
from formicary.store.jobs import SELECT_TASKS
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.migrations import migrate
from formicary.store.rows import JournalBatch, ShardMark, TaskRow
from tests.integration.store.road import Road

SHARD = ShardMark(3, 1)


async def tasks_of(database: Database, job_id: JobId) -> Sequence[TaskRow]:
    """Returns the rows of tasks, also where the job has none."""
    rows = await database.fetch(f"{SELECT_TASKS} WHERE job_id = $1::uuid ORDER BY task_no", job_id)
    return [TaskRow(*row.values()) for row in rows]


@pytest.fixture
async def road(url: str) -> AsyncIterator[Road]:
    road = Road(url)
    await road.open()
    yield road
    await road.close()


@pytest.fixture
async def journal(road: Road, leases: LeaseStore) -> AsyncIterator[Journal]:
    """A journal whose only road is ``road``, connected."""
    database = Database(road.url)
    journal = Journal(database, "q@1")
    await journal.commit(JournalBatch(shards=[SHARD]))
    yield journal
    await journal.close()


def task_row(job_id: JobId) -> TaskRow:
    return TaskRow(
        job_id, 0, "READY", 1, 1, 0, 0, 0, False, 1, None, None, None, None, None, None, None, None, None, None
    )


def batch(job_id: JobId) -> JournalBatch:
    return JournalBatch(shards=[SHARD], tasks=[task_row(job_id)])


async def test_a_commit_whose_answer_was_lost_is_found_by_its_mark(
    database: Database, journal: Journal, road: Road
) -> None:
    job_id = new_job_id()
    road.is_cut_after = True

    await journal.commit(batch(job_id))

    assert not road.is_cut_after
    assert len(await tasks_of(database, job_id)) == 1


async def test_a_commit_that_never_reached_the_server_is_reported_and_the_next_one_goes_on(
    database: Database, journal: Journal, road: Road
) -> None:
    lost, later = new_job_id(), new_job_id()
    road.is_cut_before = True

    with pytest.raises(NotCommittedError):
        await journal.commit(batch(lost))
    await journal.commit(batch(later))

    assert road.withheld
    assert (len(await tasks_of(database, lost)), len(await tasks_of(database, later))) == (0, 1)


async def test_a_lost_commit_is_asked_about_until_the_server_can_write_down_the_answer(
    database: Database, journal: Journal, road: Road
) -> None:
    road.is_cut_before = True
    async with database.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'No space left on device' USING ERRCODE = 'disk_full'; END $$; "
            "CREATE TRIGGER full_disk BEFORE UPDATE ON leases EXECUTE FUNCTION refuse()"
        )
    committing = asyncio.create_task(journal.commit(batch(new_job_id())))
    done, _ = await asyncio.wait({committing}, timeout=0.5)
    assert not done
    await database.fetch("DROP TRIGGER full_disk ON leases")
    with pytest.raises(NotCommittedError):
        await committing


async def test_a_commit_reported_as_not_happened_cannot_happen_later(
    database: Database, journal: Journal, road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, sent = new_job_id(), []
    original = Journal._ready

    async def remember(self: Journal, sql: str) -> object:
        sent.append(self._number + 1)
        return await original(self, sql)

    monkeypatch.setattr(Journal, "_ready", remember)
    road.is_cut_before = True
    with pytest.raises(NotCommittedError):
        await journal.commit(batch(job_id))

    late = Journal(database, "q@1")
    late._number = sent[0] - 1
    with pytest.raises(NotCommittedError, match="batch number used"):
        await late.commit(batch(job_id))
    await late.close()

    assert await tasks_of(database, job_id) == []


async def test_a_server_process_ended_in_the_middle_of_a_commit_leaves_nothing(
    database: Database, journal: Journal
) -> None:
    job_id = new_job_id()
    async with database.connection() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE tasks IN EXCLUSIVE MODE")
        commit = asyncio.create_task(journal.commit(batch(job_id)))
        await _end_waiting_process(database)
        with pytest.raises(NotCommittedError):
            await commit

    assert await tasks_of(database, job_id) == []


async def _end_waiting_process(database: Database) -> None:
    async with asyncio.timeout(40):
        while not await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            pass


async def test_a_lost_commit_of_a_shard_that_was_taken_over_meanwhile_is_fenced(
    journal: Journal, road: Road, leases: LeaseStore
) -> None:
    await leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)
    road.is_cut_before = True

    with pytest.raises(FencedError) as fenced:
        await journal.commit(batch(new_job_id()))

    assert fenced.value.shards == (3,)


async def test_a_committed_batch_is_found_also_where_another_of_its_shards_was_taken_over(
    database: Database, journal: Journal, road: Road, leases: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = new_job_id()
    original = Journal._settle

    async def take_first(self: Journal, shards: Sequence[ShardMark], cause: BaseException) -> None:
        await leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)
        await original(self, shards, cause)

    monkeypatch.setattr(Journal, "_settle", take_first)
    road.is_cut_after = True

    await journal.commit(JournalBatch(shards=[SHARD, ShardMark(4, 1)], tasks=[task_row(job_id)]))

    assert len(await tasks_of(database, job_id)) == 1


async def test_no_acknowledged_commit_is_lost_when_the_server_is_killed_again_and_again(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg")
    database = Database(await server.start())
    await database.open()
    await migrate(database)
    await LeaseStore(database).take(["shard-3"], QueenId("q"), "q@1", 60)
    journal = Journal(database, "q@1")
    acknowledged: list[JobId] = []
    refused: list[JobId] = []
    try:
        async with asyncio.timeout(60):
            for _ in range(3):
                killer = asyncio.create_task(_kill_after(server, acknowledged, len(acknowledged) + 40))
                while not killer.done():
                    await _commit_one(journal, acknowledged, refused)
                await killer
            for _ in range(5):
                await _commit_one(journal, acknowledged, refused)
        found = await _stored_ids(database)
    finally:
        await journal.close()
        await database.close()
        await server.stop()

    assert set(acknowledged) == found
    assert len(acknowledged) >= 120


async def _commit_one(journal: Journal, acknowledged: list[JobId], refused: list[JobId]) -> None:
    job_id = new_job_id()
    try:
        await journal.commit(batch(job_id))
        acknowledged.append(job_id)
    except NotCommittedError:
        refused.append(job_id)


async def _kill_after(server: EmbeddedPostgres, acknowledged: list[JobId], count: int) -> None:
    while len(acknowledged) < count:  # noqa: ASYNC110 - counts what the test itself does
        await asyncio.sleep(0)
    former = server.pid
    assert former is not None
    os.kill(former, signal.SIGKILL)
    while server.pid in (former, None):  # noqa: ASYNC110 - a process has no event
        await asyncio.sleep(0.01)


async def _stored_ids(database: Database) -> set[JobId]:
    while True:
        try:
            return {JobId(row["id"]) for row in await database.fetch("SELECT job_id::text AS id FROM tasks")}
        except UnavailableError:
            await asyncio.sleep(0.02)
