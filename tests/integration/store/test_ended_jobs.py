"""Jobs that ended long ago are deleted whole, and nothing else is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from formicary.artifacts.blobs import Blobs
from formicary.artifacts.colonies import put_mark
from formicary.artifacts.local import LocalStore
from formicary.clock import SystemClock
from formicary.ids import JobId, least_id, new_job_id
from formicary.queen.job_retention import JobRetention
from formicary.queen.retention import Retention
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.ended_jobs import _DELETE, EndedJobs
from formicary.store.jobs import JobStore
from formicary.store.leases import LeaseStore
from formicary.store.log_parts import AttemptLines, LogPart, LogPartStore
from formicary.store.references import References
from formicary.store.rows import NewJob

DAY = 86_400.0
TABLES = ("tasks", "task_attempts", "artifacts", "job_history", "job_commands", "task_logs", "log_parts")


class Jobs:
    """Jobs as they would be after a while."""

    def __init__(self, database: Database, make_job: Callable[..., NewJob]) -> None:
        self.database = database
        self.ended = EndedJobs(database)
        self._make_job = make_job

    async def add(self, state: str, ended_days_ago: float | None = 2.0, submitted_days_ago: float = 3.0) -> JobId:
        now = datetime.now(UTC)
        job_id = JobId(least_id(now - timedelta(days=submitted_days_ago))[:15] + new_job_id()[15:])
        await JobStore(self.database).insert([self._make_job(id=job_id, shard=3)])
        ended_at = None if ended_days_ago is None else now - timedelta(days=ended_days_ago)
        await self.execute("UPDATE jobs SET state = $2, finished_at = $3 WHERE id = $1::uuid", job_id, state, ended_at)
        return job_id

    async def execute(self, sql: str, *values: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(sql, *values)

    async def delete(self, limit: int = 100, *, only_published: bool = False) -> int:
        first_kept = least_id(datetime.now(UTC) - timedelta(days=1))
        return await self.ended.delete(DAY, first_kept, limit, only_published=only_published)

    async def left(self) -> set[str]:
        return {row["id"] for row in await self.database.fetch("SELECT id::text FROM jobs")}

    async def count(self, table: str) -> int:
        return int((await self.database.fetch(f"SELECT count(*) FROM {table}"))[0][0])


@pytest.fixture
def jobs(database: Database, make_job: Callable[..., NewJob]) -> Jobs:
    return Jobs(database, make_job)


async def test_only_jobs_that_ended_long_ago_go(jobs: Jobs) -> None:
    kept = {
        await jobs.add("PENDING", None),
        await jobs.add("READY", None),
        await jobs.add("EXECUTING", None),
        await jobs.add("EXECUTING", 2.0),  # restarted
        await jobs.add("PAUSED", None),
        await jobs.add("MANUAL_APPROVAL_REQUIRED", None),
        await jobs.add("COMPLETED", 0.5),
        await jobs.add("FAILED", 0.0, 0.1),
    }
    for state in ("COMPLETED", "FAILED", "CANCELLED"):
        await jobs.add(state)
    assert await jobs.delete() == 3
    assert await jobs.left() == kept
    assert await jobs.delete() == 0


async def test_the_oldest_go_first_and_no_more_than_asked_for(jobs: Jobs) -> None:
    by_age = [await jobs.add("COMPLETED", 2.0, days) for days in (9.0, 8.0, 7.0, 6.0)]
    assert await jobs.delete(3) == 3
    assert await jobs.left() == {by_age[3]}


async def test_a_restart_that_was_asked_for_keeps_its_job_until_it_is_refused(jobs: Jobs) -> None:
    job_id = await jobs.add("FAILED")
    commands = CommandStore(jobs.database)
    number = await commands.issue(job_id, 3, "restart", "{}", None)
    assert await jobs.delete() == 0
    await commands.hold({job_id: number})
    assert await jobs.delete() == 0
    await jobs.execute("UPDATE job_commands SET done_at = now(), refusal = 'no'")
    assert await jobs.delete() == 1


async def test_a_job_that_somebody_has_locked_is_left_for_the_next_time(jobs: Jobs) -> None:
    job_id, _ = await jobs.add("FAILED"), await jobs.add("FAILED")
    async with jobs.database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE jobs SET state = 'READY' WHERE id = $1::uuid", job_id)
        assert await jobs.delete() == 1
    assert await jobs.delete() == 0
    assert await jobs.left() == {job_id}


async def test_what_the_bus_does_not_know_yet_stays_where_it_is_told(jobs: Jobs) -> None:
    await jobs.add("COMPLETED")
    assert await jobs.delete(only_published=True) == 0
    await jobs.execute("UPDATE colony SET lifecycle_seq = (SELECT max(seq) FROM job_history)")
    assert await jobs.delete(only_published=True) == 1


async def test_everything_of_a_deleted_job_goes_and_nothing_of_others(jobs: Jobs, leases: LeaseStore) -> None:
    deleted, kept = await jobs.add("COMPLETED"), await jobs.add("COMPLETED", 0.5)
    for number, job_id in enumerate((deleted, kept)):
        await fill(jobs, job_id, f"content-{number}")
    before = {table: await jobs.count(table) for table in TABLES}
    await jobs.execute("DELETE FROM jobs WHERE id = $1::uuid", deleted)

    assert await jobs.ended.deleted(10) == [deleted]
    assert await jobs.ended.log_keys([deleted]) == [f"logs/{deleted}/1"]
    assert await jobs.ended.let_go([deleted]) == ["content-0"]
    assert await jobs.ended.let_go([deleted]) == []
    await jobs.ended.clear([deleted])
    assert await jobs.ended.forget([deleted]) == 1
    assert await jobs.ended.deleted(10) == []
    assert {table: 2 * await jobs.count(table) for table in TABLES} == before
    assert await jobs.count("log_part_attempts") == 1


async def test_what_somebody_has_locked_keeps_its_note_until_the_next_look(jobs: Jobs, leases: LeaseStore) -> None:
    job_id = await jobs.add("COMPLETED")
    await fill(jobs, job_id, "content")
    await jobs.execute("DELETE FROM jobs")
    async with jobs.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM artifacts FOR KEY SHARE")
        assert await jobs.ended.let_go([job_id]) == []
        await jobs.ended.clear([job_id])
        assert await jobs.ended.forget([job_id]) == 0
    assert await jobs.ended.let_go([job_id]) == ["content"]
    assert await jobs.ended.forget([job_id]) == 1


class Leader:
    def leader_epoch(self) -> int:
        return 1


@pytest.mark.parametrize("has_neighbour", [False, True])
async def test_objects_of_deleted_jobs_go_unless_another_colony_uses_the_store(
    jobs: Jobs, leases: LeaseStore, tmp_path: Path, has_neighbour: bool
) -> None:
    job_id = await jobs.add("COMPLETED")
    await fill(jobs, job_id, "0" * 64)
    store, clock = LocalStore(tmp_path / "store"), SystemClock()
    await store.open()
    (tmp_path / "object").touch()
    await store.put(f"logs/{job_id}/1", tmp_path / "object")
    contents = Retention(Blobs(store), References(jobs.database), clock, 3600.0)
    await contents.open()
    if has_neighbour:
        await put_mark(store, "copy", clock.now())

    retention = JobRetention(jobs.ended, store, contents, Leader(), clock, keep_s=DAY, only_published=False)
    assert await retention.run_once() == 1
    assert [key async for key in store.list("logs/")] == [f"logs/{job_id}/1"] * has_neighbour
    assert await jobs.count("log_parts") == await jobs.count("deleted_jobs") == 0


async def test_keys_of_submissions_are_forgotten_after_seven_days(
    jobs: Jobs, make_job: Callable[..., NewJob], tmp_path: Path
) -> None:
    store, clock = LocalStore(tmp_path), SystemClock()
    contents = Retention(Blobs(store), References(jobs.database), clock, 3600.0)
    retention = JobRetention(jobs.ended, store, contents, Leader(), clock, keep_s=None, only_published=False)
    outcomes = []
    for age_days in (0, 6.9, 7.1):
        await jobs.execute("UPDATE idempotency_keys SET created_at = now() - make_interval(secs => $1)", age_days * DAY)
        await retention.run_once()
        submission = make_job(idempotency_key="k", body_sha256="b")
        outcomes += [stored.outcome for stored in await JobStore(jobs.database).insert([submission])]
    assert outcomes == ["CREATED", "EXISTING", "CREATED"]


async def fill(jobs: Jobs, job_id: JobId, sha256: str) -> None:
    """Writes a row of each kind."""
    now = datetime.now(UTC)
    await jobs.execute(
        "INSERT INTO tasks (job_id, task_no, state, attempt, job_attempt, retries_used, polls_used, ants_lost, "
        "is_excepted, epoch) VALUES ($1::uuid, 0, 'COMPLETED', 2, 1, 0, 0, 0, false, 1)",
        job_id,
    )
    await jobs.execute(
        "INSERT INTO task_attempts (job_id, task_no, attempt, job_attempt, state) VALUES ($1::uuid, 0, 1, 1, 'FAILED')",
        job_id,
    )
    await jobs.execute("INSERT INTO artifacts VALUES ($1::uuid, 0, 2, 'x', $2, 1, NULL)", job_id, sha256)
    await CommandStore(jobs.database).issue(job_id, 3, "pause", "{}", None)
    await jobs.execute("UPDATE job_commands SET done_at = now()")
    await jobs.execute(
        "INSERT INTO task_logs (job_id, task_no, attempt, seq, stream, at, line) "
        "VALUES ($1::uuid, 0, 1, 1, 'stdout', $2, 'x')",
        job_id,
        now,
    )
    part = LogPart(1, f"logs/{job_id}/1", 1, 1, 1, 0, 1)
    assert await LogPartStore(jobs.database).commit(job_id, part, [AttemptLines(0, 1, ((1, 1),))], 1)


async def test_no_output_moves_any_more_once_its_job_is_deleted(jobs: Jobs, leases: LeaseStore) -> None:
    part = LogPart(1, "logs/x/1", 1, 1, 1, 0, 1)
    assert not await LogPartStore(jobs.database).commit(new_job_id(), part, [AttemptLines(0, 1, ((1, 1),))], 1)


async def test_a_look_at_much_that_is_kept_costs_little(jobs: Jobs, leases: LeaseStore) -> None:
    await jobs.add("COMPLETED")
    await jobs.execute(
        "INSERT INTO jobs (id, job_type_id, definition_id, shard, state, due_at, created_at, finished_at) "
        "SELECT ('ff' || substr(gen_random_uuid()::text, 3))::uuid, 1, gen_random_uuid(), 0, "
        "(ARRAY['COMPLETED', 'FAILED', 'CANCELLED'])[1 + n % 3], now(), now(), now() "
        "FROM generate_series(1, 20000) AS n"
    )
    await jobs.execute("ANALYZE jobs")
    assert await jobs.delete() == 1
    reads = "SELECT idx_tup_fetch + seq_tup_read AS count FROM pg_stat_xact_user_tables WHERE relname = 'jobs'"
    async with jobs.database.connection() as connection, connection.transaction():
        await connection.fetch(_DELETE, DAY, least_id(datetime.now(UTC) - timedelta(days=1)), 500, False)
        assert await connection.fetchval(reads) < 100
