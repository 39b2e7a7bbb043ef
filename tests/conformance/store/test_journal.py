"""The journal: all or nothing, fenced, counted, and an unknown commit is settled."""

from datetime import UTC, datetime
from typing import Any

import pytest

from formicary.ids import JobId, QueenId, new_job_id
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.errors import ClaimConflictError, DataRefusedError, FencedError
from formicary.store.rows import AttemptRow, CommandDone, HistoryRow, JobRow, JournalBatch, NewJob, ShardMark, TaskRow

NOW = datetime(2026, 2, 3, 4, 5, 6, 789_123, tzinfo=UTC)
ALL = tuple(ShardMark(shard, 1) for shard in range(4))


@pytest.fixture
async def owned(stores: Any) -> Any:
    """The stores; queen ``q`` has every lease in epoch 1."""
    names = [lease.name for lease in await stores.leases.all()]
    await stores.leases.take(names, QueenId("q"), "q@1", 60)
    return stores


def job_row(job_id: JobId, state: str, **changes: Any) -> JobRow:
    return JobRow(job_id, state, 1, 0, False, None, None, 0.0, NOW, NOW, None, None, None, None)._replace(**changes)


def task_row(job_id: JobId, **changes: Any) -> TaskRow:
    row = TaskRow(
        job_id, 0, "READY", 1, 1, 0, 0, 0, False, 1, "ant@1", None, None, None, None, None, None, NOW, None, None
    )
    return row._replace(**changes)


def attempt_row(job_id: JobId, **changes: Any) -> AttemptRow:
    row = AttemptRow(job_id, 0, 1, 1, "FAILED", "ant@1", 3, "ERR_EXIT_CODE", "exit 3", "{}", "[]", NOW, NOW, NOW)
    return row._replace(**changes)


def claim(jobs: list[NewJob], **changes: Any) -> JournalBatch:
    fields: dict[str, Any] = {
        "shards": ALL,
        "jobs": [job_row(job.id, "EXECUTING") for job in jobs],
        "claims": [job.id for job in jobs],
        "leader_epoch": 1,
        "running_deltas": {jobs[0].job_type_id: len(jobs)},
    }
    return JournalBatch(**(fields | changes))


async def stored_tasks(stores: Any, job_id: JobId) -> list[TaskRow]:
    (loaded,) = await stores.shards.load_jobs([job_id])
    tasks: list[TaskRow] = loaded.tasks
    return tasks


async def new_job(stores: Any, definition: DefinitionRecord) -> JobId:
    job = stores.job(definition, shard=3)
    await stores.jobs.insert([job])
    return JobId(job.id)


async def test_what_is_committed_is_what_the_next_owner_loads(owned: Any, definition: DefinitionRecord) -> None:
    job = owned.job(definition, shard=3)
    await owned.jobs.insert([job])
    task = task_row(job.id, task_no=7, state="FAILED", exit_code=-9, outputs='{"é": 1}', epoch=2**40, not_before=NOW)
    row = job_row(job.id, "EXECUTING", elapsed_s=1.5, cancelling=True, stop_code="ERR_X", waiting_for="ants")
    history = HistoryRow(job.id, NOW, "EXECUTING", 1, "ERR_X", "note")

    await owned.journal("q@1").commit(
        JournalBatch(shards=ALL, jobs=[row], tasks=[task], attempts=[attempt_row(job.id)], history=[history])
    )

    (loaded,) = await owned.shards.load(3)
    record = loaded.job
    assert (record.id, record.job_type, record.state, record.shard) == (job.id, "etl", "EXECUTING", 3)
    assert (record.elapsed_s, record.cancelling, record.stop_code, record.started_at) == (1.5, True, "ERR_X", NOW)
    assert loaded.tasks == [task]
    assert await owned.jobs.attempts(job.id) == [attempt_row(job.id)]
    assert (await owned.jobs.history(job.id))[1:] == [history]


async def test_a_task_is_replaced_whole_and_an_ended_attempt_stays_as_first_written(
    owned: Any, definition: DefinitionRecord
) -> None:
    job_id, journal = await new_job(owned, definition), owned.journal("q@1")
    await journal.commit(JournalBatch(shards=ALL, tasks=[task_row(job_id)], attempts=[attempt_row(job_id)]))

    done = task_row(job_id, state="COMPLETED", exit_code=0, incarnation=None)
    await journal.commit(JournalBatch(shards=ALL, tasks=[done], attempts=[attempt_row(job_id, exit_code=4)]))

    assert await stored_tasks(owned, job_id) == [done]
    assert await owned.jobs.attempts(job_id) == [attempt_row(job_id)]


async def test_positions_move_with_the_states_and_none_leaves_them(owned: Any) -> None:
    journal = owned.journal("q@1")
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1, b"r1", b"l1")]))
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1, b"r2", None)]))

    (lease,) = await owned.leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)
    assert (lease.results_position, lease.launch_position) == (b"r2", b"l1")


async def test_a_queen_that_lost_a_shard_commits_nothing_of_the_batch(owned: Any, definition: DefinitionRecord) -> None:
    job_id = await new_job(owned, definition)
    await owned.leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)

    with pytest.raises(FencedError) as fenced:
        await owned.journal("q@1").commit(
            JournalBatch(shards=[ShardMark(2, 1, b"r"), ShardMark(3, 1)], tasks=[task_row(job_id)])
        )

    assert (fenced.value.shards, fenced.value.is_leader) == ((3,), False)
    assert await stored_tasks(owned, job_id) == []
    assert [lease.results_position for lease in await owned.leases.all()] == [None] * 5


async def test_a_queen_that_leads_no_more_claims_nothing(owned: Any, definition: DefinitionRecord) -> None:
    job = owned.job(definition)
    await owned.jobs.insert([job])
    await owned.leases.take(["leader"], QueenId("other"), "other@1", 60, only_lapsed=False)

    with pytest.raises(FencedError) as fenced:
        await owned.journal("q@1").commit(claim([job]))
    with pytest.raises(FencedError):
        await owned.claims.claim_ready([job.id], 1)

    assert fenced.value.is_leader
    assert [item.job.id for item in await owned.claims.peek(10, ())] == [job.id]


async def test_a_job_that_is_not_pending_any_more_is_claimed_by_nobody(
    owned: Any, definition: DefinitionRecord
) -> None:
    jobs = [owned.job(definition) for _ in range(2)]
    await owned.jobs.insert(jobs)
    await owned.jobs.change_pending(jobs[0].id, "cancel", "why not")

    with pytest.raises(ClaimConflictError) as conflict:
        await owned.journal("q@1").commit(claim(jobs))

    assert conflict.value.job_ids == (jobs[0].id,)
    assert [item.job.state for item in await owned.shards.load_jobs([jobs[1].id])] == ["PENDING"]


async def test_claims_beyond_a_types_limit_are_refused_and_ends_make_room(owned: Any) -> None:
    limited = await owned.save(JobDefinition(job_type="one", source="job_type: one", max_concurrency=1))
    jobs, journal = [owned.job(limited) for _ in range(2)], owned.journal("q@1")
    await owned.jobs.insert(jobs)

    with pytest.raises(ClaimConflictError) as conflict:
        await journal.commit(claim(jobs))
    await journal.commit(claim(jobs[:1]))

    assert set(conflict.value.job_ids) == {job.id for job in jobs}
    assert await owned.claims.peek(10, ()) == []
    (blocked,) = await owned.claims.blocked()
    assert (blocked.running_count, blocked.running_job_id) == (1, jobs[0].id)
    assert blocked.pending_job_ids == (jobs[1].id,)

    end = job_row(jobs[0].id, "COMPLETED", finished_at=NOW)
    await journal.commit(JournalBatch(shards=ALL, jobs=[end], running_deltas={limited.job_type_id: -1}))
    assert [item.job.id for item in await owned.claims.peek(10, ())] == [jobs[1].id]


async def test_commands_are_open_until_the_journal_says_what_became_of_them(owned: Any) -> None:
    applied, refused, left = [
        await owned.commands.issue(new_job_id(), 3, kind, "{}", None) for kind in ("cancel", "pause", "resume")
    ]

    await owned.journal("q@1").commit(
        JournalBatch(shards=ALL, commands_done=[CommandDone(applied, None), CommandDone(refused, "it has ended")])
    )

    assert await owned.commands.outcome(applied) == (True, None)
    assert await owned.commands.outcome(refused) == (True, "it has ended")
    assert [(row.id, row.kind) for row in await owned.commands.open([3])] == [(left, "resume")]
    assert await owned.commands.open([2]) == []


@pytest.mark.parametrize(
    "changes",
    [{"outputs": "a\0b"}, {"error_message": "\ud800"}, {"exit_code": 2**31}, {"epoch": 2**63}, {"attempt": None}],
    ids=["NUL", "lone surrogate", "int4 range", "int8 range", "missing"],
)
async def test_a_value_that_cannot_be_stored_writes_nothing_and_the_next_batch_goes_on(
    owned: Any, definition: DefinitionRecord, changes: dict[str, Any]
) -> None:
    good, bad = await new_job(owned, definition), await new_job(owned, definition)
    journal = owned.journal("q@1")

    with pytest.raises(DataRefusedError):
        await journal.commit(
            JournalBatch(shards=[ShardMark(3, 1, b"new")], tasks=[task_row(good), task_row(bad, **changes)])
        )
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1)], tasks=[task_row(bad)]))

    assert (await stored_tasks(owned, good), len(await stored_tasks(owned, bad))) == ([], 1)
    assert [lease.results_position for lease in await owned.leases.all()] == [None] * 5


async def test_a_batch_with_content_must_name_its_shards_and_an_empty_one_is_nothing(owned: Any) -> None:
    journal = owned.journal("q@1")

    with pytest.raises(ValueError, match="name the shards"):
        await journal.commit(JournalBatch(tasks=[task_row(new_job_id())]))
    await journal.commit(JournalBatch())
    await journal.commit(
        JournalBatch(shards=[], jobs=[], tasks=[], attempts=[], history=[], commands_done=[], claims=[])
    )


async def test_a_batch_that_was_settled_as_not_committed_never_happens(
    owned: Any, definition: DefinitionRecord
) -> None:
    job_id, journal = await new_job(owned, definition), owned.journal("q@1")
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1)]))

    seen = await journal._settled([3], [1], 2)
    journal._number = 1
    with pytest.raises(Exception, match="batch number used"):
        await journal.commit(JournalBatch(shards=[ShardMark(3, 1)], tasks=[task_row(job_id)]))

    assert [(row["shard"], row["epoch"], row["is_ours"]) for row in seen] == [(3, 1, False)]
    assert await stored_tasks(owned, job_id) == []


async def test_a_batch_that_happened_is_found_by_its_mark(owned: Any) -> None:
    journal = owned.journal("q@1")
    await journal.commit(JournalBatch(shards=[ShardMark(2, 1), ShardMark(3, 1)]))
    await owned.leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)

    seen = await journal._settled([2, 3], [1, 1], 1)

    assert sorted((row["shard"], row["epoch"], row["is_ours"]) for row in seen) == [(2, 1, True), (3, 2, True)]


def start(jobs: list[NewJob], **changes: Any) -> JournalBatch:
    return claim(jobs, fresh=jobs, **changes)


async def test_a_fresh_job_is_inserted_claimed_and_started_in_one_commit(
    owned: Any, definition: DefinitionRecord
) -> None:
    job = owned.job(definition, params='{"n": 1}')

    await owned.journal("q@1").commit(start([job]))

    (loaded,) = await owned.shards.load_jobs([job.id])
    assert (loaded.job.state, loaded.job.params) == ("EXECUTING", '{"n": 1}')
    assert [answer.outcome.value for answer in await owned.jobs.insert([job])] == ["CREATED"]
    assert await owned.claims.peek(10, ()) == []


async def test_nothing_is_left_of_a_fresh_job_whose_batch_is_refused(owned: Any, definition: DefinitionRecord) -> None:
    jobs = [owned.job(definition, idempotency_key=f"k{n}", body_sha256="b") for n in range(2)]
    await owned.leases.take(["leader"], QueenId("other"), "other@1", 60, only_lapsed=False)

    with pytest.raises(FencedError):
        await owned.journal("q@1").commit(start(jobs))

    assert await owned.shards.load_jobs([job.id for job in jobs]) == []
    other = owned.job(definition, idempotency_key="k0", body_sha256="b")
    assert [answer.job_id for answer in await owned.jobs.insert([other])] == [other.id]


async def test_a_fresh_job_whose_key_was_used_is_refused_and_the_others_not_written(
    owned: Any, definition: DefinitionRecord
) -> None:
    first = owned.job(definition, idempotency_key="k", body_sha256="b")
    await owned.jobs.insert([first])
    again, other = owned.job(definition, idempotency_key="k", body_sha256="b"), owned.job(definition)

    with pytest.raises(ClaimConflictError) as conflict:
        await owned.journal("q@1").commit(start([again, other]))

    assert conflict.value.job_ids == (again.id,)
    assert [item.job.id for item in await owned.shards.load_jobs([again.id, other.id, first.id])] == [first.id]


async def test_a_fresh_job_of_a_full_type_is_refused(owned: Any) -> None:
    limited = await owned.save(JobDefinition(job_type="one", source="job_type: one", max_concurrency=1))
    jobs = [owned.job(limited) for _ in range(2)]

    with pytest.raises(ClaimConflictError):
        await owned.journal("q@1").commit(start(jobs))
    await owned.journal("q@1").commit(start(jobs[:1]))

    assert [item.job.id for item in await owned.shards.load_jobs([job.id for job in jobs])] == [jobs[0].id]


async def test_a_fresh_job_that_is_there_already_is_claimed_as_any_other(
    owned: Any, definition: DefinitionRecord
) -> None:
    pending, gone = owned.job(definition), owned.job(definition)
    await owned.jobs.insert([pending, gone])
    await owned.jobs.change_pending(gone.id, "cancel", "why not")

    with pytest.raises(ClaimConflictError) as conflict:
        await owned.journal("q@1").commit(start([pending, gone]))
    await owned.journal("q@1").commit(start([pending]))

    assert conflict.value.job_ids == (gone.id,)
    assert [item.job.state for item in await owned.shards.load_jobs([pending.id])] == ["EXECUTING"]
