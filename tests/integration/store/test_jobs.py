"""Submissions and their idempotency, lists, and commands to jobs that nobody has claimed."""

import asyncio
from collections.abc import Callable

import pytest

from formicary.errors import DataError, InvalidInputError
from formicary.ids import JobId, new_job_id
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.model.states import JobState
from formicary.store.claims import ClaimStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.jobs import InsertOutcome, JobStore
from formicary.store.leases import LeaseStore
from formicary.store.rows import NewJob

MakeJob = Callable[..., NewJob]


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


async def _count(database: Database, table: str) -> int:
    row = await database.fetch_one(f"SELECT count(*) AS count FROM {table}")
    assert row is not None
    return int(row["count"])


async def test_a_submission_is_pending_with_everything_it_came_with(store: JobStore, make_job: MakeJob) -> None:
    job = make_job(priority=7, params='{"a": [1, null]}', labels='{"team": "x"}', rendered_source="tasks: []")

    assert await store.insert([job]) == [(job.id, InsertOutcome.CREATED)]

    stored = await store.get(job.id)
    assert stored is not None
    view = stored.view
    assert (view.id, view.job_type, view.version, view.state) == (job.id, "etl", 1, JobState.PENDING)
    assert (view.priority, view.params, view.labels) == (7, {"a": [1, None]}, {"team": "x"})
    assert (view.created_at, view.scheduled_at, view.started_at) == (job.created_at, None, None)
    assert (stored.definition_id, stored.shard, stored.rendered_source) == (job.definition_id, job.shard, "tasks: []")
    assert [(row.state, row.at) for row in await store.history(job.id)] == [("PENDING", job.created_at)]


async def test_an_unknown_job_is_none(store: JobStore) -> None:
    assert await store.get(new_job_id()) is None


async def test_many_submissions_are_one_statement(counting: Database, statements: list[str], make_job: MakeJob) -> None:
    await JobStore(counting).insert([make_job() for _ in range(500)])

    assert len(statements) == 1
    assert await _count(counting, "jobs") == 500


async def test_a_key_seen_with_the_same_body_gives_the_first_job(
    database: Database, store: JobStore, make_job: MakeJob
) -> None:
    first, second = (make_job(idempotency_key="k", body_sha256="same") for _ in range(2))
    await store.insert([first])

    assert await store.insert([second]) == [(first.id, InsertOutcome.EXISTING)]
    assert await _count(database, "jobs") == 1


async def test_a_key_seen_with_another_body_is_a_conflict(store: JobStore, make_job: MakeJob) -> None:
    first, second = (make_job(idempotency_key="k", body_sha256=body) for body in ("one", "two"))
    await store.insert([first])

    assert await store.insert([second]) == [(first.id, InsertOutcome.KEY_CONFLICT)]
    assert await store.get(second.id) is None


async def test_of_one_key_in_one_call_the_first_job_wins(
    database: Database, store: JobStore, make_job: MakeJob
) -> None:
    jobs = [make_job(idempotency_key="k", body_sha256=body) for body in ("same", "same", "other")]

    outcomes = await store.insert([make_job(), *jobs])

    assert [item.outcome for item in outcomes] == ["CREATED", "CREATED", "EXISTING", "KEY_CONFLICT"]
    assert {item.job_id for item in outcomes[1:]} == {jobs[0].id}
    assert await _count(database, "jobs") == 2


async def test_a_key_sent_many_times_at_once_makes_one_job(
    database: Database, store: JobStore, make_job: MakeJob
) -> None:
    calls = [[make_job(idempotency_key=key, body_sha256="b") for key in keys] for keys in ("ab", "ba", "ab", "ba") * 5]

    results = await asyncio.gather(*(store.insert(jobs) for jobs in calls))

    outcomes = [item.outcome for result in results for item in result]
    assert (outcomes.count(InsertOutcome.CREATED), outcomes.count(InsertOutcome.EXISTING)) == (2, 38)
    assert await _count(database, "jobs") == 2


async def test_repeating_a_call_whose_answer_was_lost_changes_nothing(
    database: Database, store: JobStore, make_job: MakeJob, definition: DefinitionRecord
) -> None:
    jobs = [make_job(expects_newest=True), make_job(idempotency_key="k", body_sha256="b", expects_newest=True)]
    first = await store.insert(jobs)
    await DefinitionStore(database).save(JobDefinition(job_type="etl", source="newer"))

    assert await store.insert(jobs) == first
    assert (await _count(database, "jobs"), await _count(database, "job_history")) == (2, 2)


async def test_a_job_made_for_the_newest_version_is_stale_once_there_is_a_newer_one(
    database: Database, store: JobStore, make_job: MakeJob
) -> None:
    known = make_job(idempotency_key="known", body_sha256="b")
    await store.insert([known])
    await DefinitionStore(database).save(JobDefinition(job_type="etl", source="newer"))

    outcomes = await store.insert(
        [
            make_job(expects_newest=True),
            make_job(expects_newest=True, idempotency_key="new", body_sha256="b"),
            make_job(expects_newest=True, idempotency_key="known", body_sha256="b"),
            make_job(),
        ]
    )

    assert [item.outcome for item in outcomes] == ["STALE", "STALE", "EXISTING", "CREATED"]
    assert (await _count(database, "jobs"), await _count(database, "idempotency_keys")) == (2, 1)


@pytest.mark.parametrize("changes", [{"params": '"\0"'}, {"labels": "\udfff"}, {"priority": 2**31}])
async def test_a_value_that_postgres_refuses_inserts_nothing(
    database: Database, store: JobStore, make_job: MakeJob, changes: dict[str, object]
) -> None:
    with pytest.raises(DataError):
        await store.insert([make_job(), make_job(**changes)])

    assert await _count(database, "jobs") == 0


async def test_pages_stay_stable_while_jobs_arrive(store: JobStore, make_job: MakeJob) -> None:
    jobs = [make_job() for _ in range(5)]
    await store.insert(jobs)
    newest_first = sorted((job.id for job in jobs), reverse=True)

    page, cursor = await store.list(None, None, 2, None)
    await store.insert([make_job() for _ in range(3)])
    rest, end = await store.list(None, None, 10, cursor)

    assert [view.id for view in page + rest] == newest_first
    assert end is None
    assert page[0].tasks is None


async def test_lists_are_filtered_by_state_and_type(database: Database, store: JobStore, make_job: MakeJob) -> None:
    other, _ = await DefinitionStore(database).save(JobDefinition(job_type="other", source="x"))
    jobs = [make_job(), make_job(), make_job(job_type_id=other.job_type_id, definition_id=other.id)]
    await store.insert(jobs)
    await store.change_pending(jobs[0].id, "cancel", "")

    async def ids(state: JobState | None, job_type: str | None) -> set[JobId]:
        return {view.id for view in (await store.list(state, job_type, 10, None))[0]}

    assert await ids(JobState.PENDING, None) == {jobs[1].id, jobs[2].id}
    assert await ids(None, "etl") == {jobs[0].id, jobs[1].id}
    assert await ids(JobState.CANCELLED, "etl") == {jobs[0].id}
    assert await ids(None, "unknown") == set()


async def test_a_page_is_one_statement(counting: Database, statements: list[str], make_job: MakeJob) -> None:
    store = JobStore(counting)
    await store.insert([make_job() for _ in range(50)])
    statements.clear()

    await store.list(JobState.PENDING, "etl", 40, None)

    assert len(statements) == 1


async def test_a_cursor_of_somebody_else_is_refused(store: JobStore) -> None:
    with pytest.raises(InvalidInputError, match="no cursor"):
        await store.list(None, None, 2, "'; DROP TABLE jobs")


async def test_a_pending_job_is_paused_resumed_and_cancelled_with_its_history(
    store: JobStore, make_job: MakeJob
) -> None:
    job = make_job()
    await store.insert([job])

    found = [(await store.change_pending(job.id, kind, kind)) for kind in ("pause", "pause", "resume", "cancel")]

    assert [(change.is_applied, change.found) for change in found] == [
        (True, "PENDING"),
        (False, "PAUSED"),
        (True, "PAUSED"),
        (True, "PENDING"),
    ]
    stored = await store.get(job.id)
    assert stored is not None
    assert (stored.view.state, stored.view.error_code, stored.view.error_message) == (
        "CANCELLED",
        "ERR_CANCELLED",
        "cancel",
    )
    assert stored.view.finished_at is not None
    assert [(row.state, row.note) for row in (await store.history(job.id))[1:]] == [
        ("PAUSED", "pause"),
        ("PENDING", "resume"),
        ("CANCELLED", "cancel"),
    ]


async def test_a_job_paused_before_its_start_can_be_cancelled(store: JobStore, make_job: MakeJob) -> None:
    job = make_job()
    await store.insert([job])
    await store.change_pending(job.id, "pause", "")

    assert (await store.change_pending(job.id, "cancel", "")).is_applied


async def test_a_claimed_job_and_an_unknown_one_are_left_alone(
    database: Database, store: JobStore, leases: LeaseStore, make_job: MakeJob
) -> None:
    job = make_job()
    await store.insert([job])
    await ClaimStore(database).claim_ready([job.id], 1)

    claimed = await store.change_pending(job.id, "cancel", "")
    unknown = await store.change_pending(new_job_id(), "cancel", "")

    assert (claimed.is_applied, claimed.found) == (False, JobState.READY)
    assert (unknown.is_applied, unknown.found) == (False, None)


async def test_of_a_cancel_and_a_claim_at_once_exactly_one_happens(
    database: Database, store: JobStore, leases: LeaseStore, make_job: MakeJob
) -> None:
    claims, jobs = ClaimStore(database), [make_job() for _ in range(20)]
    await store.insert(jobs)

    for job in jobs:
        claimed, change = await asyncio.gather(
            claims.claim_ready([job.id], 1), store.change_pending(job.id, "cancel", "")
        )
        assert bool(claimed) != change.is_applied


async def test_reasons_are_written_to_pending_jobs_only(store: JobStore, make_job: MakeJob) -> None:
    waiting, cancelled = make_job(), make_job()
    await store.insert([waiting, cancelled])
    await store.change_pending(cancelled.id, "cancel", "")

    await store.set_waiting({waiting.id: "no ant", cancelled.id: "no ant"})
    reasons = {view.id: view.waiting_for for view in (await store.list(None, None, 10, None))[0]}
    await store.set_waiting({waiting.id: None})

    assert reasons == {waiting.id: "no ant", cancelled.id: None}
    stored = await store.get(waiting.id)
    assert stored is not None
    assert stored.view.waiting_for is None
