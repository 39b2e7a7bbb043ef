"""Which pending jobs may start, in which order, at which cost."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from formicary.ids import JobId, QueenId
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.claims import _BLOCKED, _HEADS, ClaimStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.errors import FencedError
from formicary.store.jobs import JobStore
from formicary.store.leases import LeaseStore
from formicary.store.rows import NewJob

MakeJob = Callable[..., NewJob]


@pytest.fixture
def claims(database: Database) -> ClaimStore:
    return ClaimStore(database)


async def _peek(claims: ClaimStore, limit: int = 10, exclude: tuple[JobId, ...] = ()) -> list[JobId]:
    return [item.job.id for item in await claims.peek(limit, exclude)]


async def _limit(database: Database, maximum: int) -> None:
    await database.fetch("UPDATE job_types SET max_concurrency = $1 WHERE job_type = 'etl'", maximum)


async def test_due_jobs_come_by_priority_then_due_time(
    database: Database, claims: ClaimStore, make_job: MakeJob
) -> None:
    now = datetime.now(UTC)
    other, _ = await DefinitionStore(database).save(JobDefinition(job_type="other", source="x"))
    old = make_job(due_at=now - timedelta(hours=2))
    new = make_job(due_at=now - timedelta(hours=1))
    urgent = make_job(priority=5, job_type_id=other.job_type_id, definition_id=other.id)
    later = make_job(priority=9, due_at=now + timedelta(hours=1), scheduled_at=now + timedelta(hours=1))
    await JobStore(database).insert([new, later, old, urgent])

    assert await _peek(claims) == [urgent.id, old.id, new.id]
    assert await _peek(claims, limit=1) == [urgent.id]
    assert (await claims.outlook()).next_due_at == later.due_at


async def test_what_peek_gives_is_complete(database: Database, claims: ClaimStore, make_job: MakeJob) -> None:
    job = make_job(params='{"a": 1}', user_name="u")
    await JobStore(database).insert([job])

    (loaded,) = await claims.peek(10, ())

    record = loaded.job
    assert (record.id, record.job_type, record.version, record.shard) == (job.id, "etl", 1, job.shard)
    assert (record.params, record.user_name, record.attempt, record.state) == ('{"a": 1}', "u", 1, "PENDING")
    assert loaded.tasks == []


async def test_a_job_of_a_queen_whose_clock_is_ahead_is_due_at_once(
    database: Database, claims: ClaimStore, make_job: MakeJob
) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    job = make_job(due_at=ahead, created_at=ahead)
    await JobStore(database).insert([job])

    assert await _peek(claims) == [job.id]


async def test_jobs_being_claimed_are_left_out_and_use_up_their_types_room(
    database: Database, claims: ClaimStore, make_job: MakeJob
) -> None:
    jobs = [make_job() for _ in range(4)]
    await JobStore(database).insert(jobs)
    everyone = await _peek(claims)

    assert await _peek(claims, exclude=(everyone[0],)) == everyone[1:]
    await _limit(database, 2)
    assert await _peek(claims, exclude=(everyone[0],)) == [everyone[1]]
    assert await _peek(claims) == everyone[:2]


async def test_a_blocked_type_gives_nothing_and_says_which_job_runs(
    database: Database, claims: ClaimStore, leases: LeaseStore, make_job: MakeJob
) -> None:
    jobs = [make_job() for _ in range(3)]
    await JobStore(database).insert(jobs)
    await _limit(database, 1)
    (running,) = await claims.claim_ready(await _peek(claims), 1)

    assert await _peek(claims) == []
    (blocked,) = await claims.blocked()
    assert (blocked.job_type, blocked.running_count, blocked.max_concurrency) == ("etl", 1, 1)
    assert blocked.running_job_id == running
    assert set(blocked.pending_job_ids) == {job.id for job in jobs} - {running}


async def test_claims_for_other_owners_stop_at_the_limit_and_are_counted(
    database: Database, claims: ClaimStore, leases: LeaseStore, make_job: MakeJob
) -> None:
    jobs = [make_job(priority=number) for number in range(4)]
    await JobStore(database).insert(jobs)
    await _limit(database, 3)

    claimed = await claims.claim_ready([job.id for job in jobs], 1)
    again = await claims.claim_ready([job.id for job in jobs], 1)

    assert set(claimed) == {job.id for job in jobs[1:]}
    assert again == []
    rows = await database.fetch("SELECT running_count FROM job_types")
    assert rows[0]["running_count"] == 3
    assert [row.state for row in await JobStore(database).history(jobs[3].id)] == ["PENDING", "READY"]


async def test_a_queen_that_leads_no_more_claims_nothing(
    database: Database, claims: ClaimStore, leases: LeaseStore, make_job: MakeJob
) -> None:
    job = make_job()
    await JobStore(database).insert([job])
    await leases.take(["leader"], QueenId("b"), "b@1", 60, only_lapsed=False)

    with pytest.raises(FencedError):
        await claims.claim_ready([job.id], 1)

    assert await _peek(claims) == [job.id]


async def test_a_restarted_job_comes_with_its_tasks(database: Database, claims: ClaimStore, make_job: MakeJob) -> None:
    first, again = make_job(), make_job()
    await JobStore(database).insert([first, again])
    await database.fetch("UPDATE jobs SET attempt = 2 WHERE id = $1::uuid", again.id)
    await database.fetch(
        "INSERT INTO tasks (job_id, task_no, state, attempt, job_attempt, retries_used, polls_used, ants_lost, "
        "is_excepted, epoch) SELECT id::uuid, n, 'COMPLETED', 1, 1, 0, 0, 0, false, 1 "
        "FROM unnest($1::uuid[]) AS id, generate_series(0, 1) AS n",
        [first.id, again.id],
    )

    loaded = {item.job.id: [task.task_no for task in item.tasks] for item in await claims.peek(10, ())}

    assert loaded == {first.id: [], again.id: [0, 1]}


async def test_a_look_is_two_statements_however_many_jobs_are_due(
    counting: Database, statements: list[str], make_job: MakeJob
) -> None:
    await JobStore(counting).insert([make_job() for _ in range(100)])
    statements.clear()

    assert len(await ClaimStore(counting).peek(100, ())) == 100
    assert len(statements) == 2


async def test_neither_a_blocked_type_nor_jobs_of_tomorrow_cost_a_look_anything(
    database: Database, definition: DefinitionRecord
) -> None:
    for name, priority, due in (("blocked", 5, "0"), ("tomorrow", 9, "1 day"), ("etl", 0, "0")):
        await _fill(database, name, priority, due)
    await _fill(database, "etl", 7, "1 day")
    await database.fetch("UPDATE job_types SET max_concurrency = 1, running_count = 1 WHERE job_type = 'blocked'")

    for sql, values in ((_HEADS, (10, [])), (_BLOCKED, ())):
        plan = await _explain(database, sql, *values)
        touched = {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}
        rows = sum(node["Actual Rows"] * node["Actual Loops"] for node in plan if node.get("Relation Name") == "jobs")
        skipped = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in plan)
        assert "jobs" not in touched
        assert rows + skipped < 500


async def _fill(database: Database, job_type: str, priority: int, due_in: str) -> None:
    record, _ = await DefinitionStore(database).save(JobDefinition(job_type=job_type, source="job_type: etl"))
    await database.fetch(
        "INSERT INTO jobs (id, job_type_id, definition_id, shard, state, priority, due_at, created_at) "
        "SELECT gen_random_uuid(), $1, $2::uuid, n % 16, 'PENDING', $3, now() + $4::text::interval, now() "
        "FROM generate_series(1, 25000) AS n",
        record.job_type_id,
        record.id,
        priority,
        due_in,
    )


async def _explain(database: Database, sql: str, *values: object) -> list[dict[str, Any]]:
    (row,) = await database.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
    return list(_nodes(json.loads(row["QUERY PLAN"])[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
