"""The journal: all or nothing, fenced, counted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from formicary.ids import JobId, QueenId, new_job_id
from formicary.model.definition import DefinitionRecord
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.errors import ClaimConflictError, DataRefusedError, FencedError
from formicary.store.jobs import SELECT_TASKS, JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.rows import (
    AttemptRow,
    CommandDone,
    HistoryRow,
    JobRow,
    JournalBatch,
    NewJob,
    ShardMark,
    TaskRow,
)

MakeJob = Callable[..., NewJob]
NOW = datetime(2026, 2, 3, 4, 5, 6, 789_123, tzinfo=UTC)
ALL = tuple(ShardMark(shard, 1) for shard in range(16))


async def tasks_of(database: Database, job_id: JobId) -> Sequence[TaskRow]:
    """Returns the rows of tasks, also where the job has none."""
    rows = await database.fetch(f"{SELECT_TASKS} WHERE job_id = $1::uuid ORDER BY task_no", job_id)
    return [TaskRow(*row.values()) for row in rows]


@pytest.fixture
async def journal(database: Database, leases: LeaseStore) -> AsyncIterator[Journal]:
    journal = Journal(database, "q@1")
    yield journal
    await journal.close()


@pytest.fixture
async def limited(database: Database, definition: DefinitionRecord) -> DefinitionRecord:
    await database.fetch("UPDATE job_types SET max_concurrency = 2")
    return definition


def job_row(job_id: JobId, state: str, **changes: Any) -> JobRow:
    return JobRow(job_id, state, 1, 0, False, None, None, 0.0, NOW, NOW, None, None, None, None)._replace(**changes)


def task_row(job_id: JobId, task_no: int = 0, state: str = "READY", **changes: Any) -> TaskRow:
    row = TaskRow(
        job_id=job_id,
        task_no=task_no,
        state=state,
        attempt=1,
        job_attempt=1,
        retries_used=0,
        polls_used=0,
        ants_lost=0,
        is_excepted=False,
        epoch=1,
        incarnation="ant@1",
        not_before=None,
        exit_code=None,
        error_code=None,
        error_message=None,
        outputs=None,
        artifacts=None,
        dispatched_at=NOW,
        started_at=None,
        finished_at=None,
    )
    return row._replace(**changes)


def attempt_row(job_id: JobId, **changes: Any) -> AttemptRow:
    row = AttemptRow(job_id, 0, 1, 1, "FAILED", "ant@1", 3, "ERR_EXIT_CODE", "exit 3", "{}", "[]", NOW, NOW, NOW, "{}")
    return row._replace(**changes)


async def running_count(database: Database) -> int:
    row = await database.fetch_one("SELECT running_count FROM job_types")
    assert row is not None
    return int(row["running_count"])


def claim(jobs: list[NewJob], *, leader_epoch: int = 1, marks: tuple[ShardMark, ...] = ALL) -> JournalBatch:
    return JournalBatch(
        shards=marks,
        jobs=[job_row(job.id, "EXECUTING") for job in jobs],
        claims=[job.id for job in jobs],
        leader_epoch=leader_epoch,
        running_deltas={jobs[0].job_type_id: len(jobs)},
    )


async def test_every_column_comes_back_as_it_was_written(
    database: Database, journal: Journal, make_job: MakeJob
) -> None:
    store, job = JobStore(database), make_job()
    await store.insert([job])
    task = task_row(
        job.id, 7, "FAILED", retries_used=1, polls_used=2, ants_lost=3, is_excepted=True, epoch=2**40, not_before=NOW,
        exit_code=-9, error_code="ERR_SIGNAL", error_message="signal 9, killed", outputs='{"é": 1}', artifacts="[]",
        started_at=NOW + timedelta(microseconds=1), finished_at=NOW + timedelta(microseconds=2), cache='{"key": "k"}',
    )  # fmt: skip
    history = HistoryRow(job.id, NOW, "EXECUTING", 1, "ERR_X", "note")

    await journal.commit(
        JournalBatch(
            shards=ALL,
            jobs=[job_row(job.id, "EXECUTING", elapsed_s=1.5, cancelling=True, stop_code="ERR_X", waiting_for="ants")],
            tasks=[task],
            attempts=[attempt_row(job.id)],
            history=[history],
        )
    )

    stored = await store.get(job.id)
    assert stored is not None
    assert (stored.view.state, stored.view.started_at, stored.view.waiting_for) == ("EXECUTING", NOW, "ants")
    assert await tasks_of(database, job.id) == [task]
    assert await store.attempts(job.id) == [attempt_row(job.id)]
    assert (await store.history(job.id))[1:] == [history]


async def test_a_task_is_replaced_whole_and_an_ended_attempt_stays_as_first_written(
    database: Database, journal: Journal
) -> None:
    job_id, store = new_job_id(), JobStore(database)
    await journal.commit(JournalBatch(shards=ALL, tasks=[task_row(job_id)], attempts=[attempt_row(job_id)]))

    done = task_row(job_id, state="COMPLETED", exit_code=0, incarnation=None)
    await journal.commit(JournalBatch(shards=ALL, tasks=[done], attempts=[attempt_row(job_id, exit_code=4)]))

    assert await tasks_of(database, job_id) == [done]
    assert await store.attempts(job_id) == [attempt_row(job_id)]


async def test_positions_move_with_the_states_and_none_leaves_them(journal: Journal, leases: LeaseStore) -> None:
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1, b"r1", b"l1")]))
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1, b"r2", None)]))

    lease = next(lease for lease in await leases.all() if lease.shard == 3)
    assert (lease.results_position, lease.launch_position) == (b"r2", b"l1")


async def test_commands_are_marked_done_with_their_refusal(database: Database, journal: Journal) -> None:
    commands = CommandStore(database)
    applied, refused, left = [await commands.issue(new_job_id(), 3, "cancel", "{}", None) for _ in range(3)]

    await journal.commit(
        JournalBatch(shards=ALL, commands_done=[CommandDone(applied, None), CommandDone(refused, "it has ended")])
    )

    assert await commands.outcome(applied) == (True, None)
    assert await commands.outcome(refused) == (True, "it has ended")
    assert [row.id for row in await commands.open([3])] == [left]


async def test_a_queen_that_lost_a_shard_commits_nothing(
    database: Database, journal: Journal, leases: LeaseStore
) -> None:
    job_id = new_job_id()
    await leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)

    with pytest.raises(FencedError) as fenced:
        await journal.commit(JournalBatch(shards=[ShardMark(2, 1), ShardMark(3, 1)], tasks=[task_row(job_id)]))

    assert fenced.value.shards == (3,)
    assert await tasks_of(database, job_id) == []


async def test_a_queen_that_lost_the_leadership_claims_nothing(
    database: Database, journal: Journal, leases: LeaseStore, make_job: MakeJob
) -> None:
    job = make_job()
    await JobStore(database).insert([job])
    await leases.take(["leader"], QueenId("other"), "other@1", 60, only_lapsed=False)

    with pytest.raises(FencedError) as fenced:
        await journal.commit(claim([job]))

    assert fenced.value.is_leader
    assert await running_count(database) == 0


async def test_of_two_queens_the_one_with_the_newer_epoch_commits(
    database: Database, journal: Journal, leases: LeaseStore
) -> None:
    other, job_id = Journal(database, "other@1"), new_job_id()
    (lease,) = await leases.take(["shard-3"], QueenId("other"), "other@1", 60, only_lapsed=False)

    outcomes = await asyncio.gather(
        journal.commit(JournalBatch(shards=[ShardMark(3, 1)], tasks=[task_row(job_id, state="FAILED")])),
        other.commit(JournalBatch(shards=[ShardMark(3, lease.epoch)], tasks=[task_row(job_id)])),
        return_exceptions=True,
    )
    await other.close()

    assert isinstance(outcomes[0], FencedError)
    assert [row.state for row in await tasks_of(database, job_id)] == ["READY"]


async def test_a_take_over_waits_for_a_commit_under_way_and_then_fences(
    database: Database, journal: Journal, leases: LeaseStore
) -> None:
    job_id = new_job_id()
    async with database.connection() as blocker, blocker.transaction():
        # The commit holds its shard's row and waits here for the same task.
        await blocker.execute("LOCK TABLE tasks IN EXCLUSIVE MODE")
        commit = asyncio.create_task(
            journal.commit(JournalBatch(shards=[ShardMark(3, 1, b"read")], tasks=[task_row(job_id)]))
        )
        await _until_waiting(database, 1)
        take = asyncio.create_task(leases.take(["shard-3"], QueenId("b"), "b@1", 60, only_lapsed=False))
        await _until_waiting(database, 2)
    await commit
    (lease,) = await take

    assert (lease.epoch, lease.results_position) == (2, b"read")
    with pytest.raises(FencedError):
        await journal.commit(JournalBatch(shards=[ShardMark(3, 1)], tasks=[task_row(job_id, state="FAILED")]))


async def _until_waiting(database: Database, count: int) -> None:
    async with asyncio.timeout(40):
        while True:
            rows = await database.fetch(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if len(rows) >= count:
                return


async def test_a_job_cancelled_between_peek_and_commit_is_not_claimed(
    database: Database, journal: Journal, make_job: MakeJob
) -> None:
    store, jobs = JobStore(database), [make_job() for _ in range(3)]
    await store.insert(jobs)
    await store.change_pending(jobs[1].id, "cancel", "cancel requested")

    with pytest.raises(ClaimConflictError) as conflict:
        await journal.commit(claim(jobs))
    await journal.commit(claim([jobs[0], jobs[2]]))

    assert conflict.value.job_ids == (jobs[1].id,)
    states = [stored.view.state for job in jobs if (stored := await store.get(job.id))]
    assert states == ["EXECUTING", "CANCELLED", "EXECUTING"]
    assert await running_count(database) == 2


async def test_claims_beyond_max_concurrency_are_refused_and_an_end_makes_room(
    database: Database, journal: Journal, make_job: MakeJob, limited: DefinitionRecord
) -> None:
    jobs = [make_job() for _ in range(3)]
    await JobStore(database).insert(jobs)
    await journal.commit(claim(jobs[:2]))

    with pytest.raises(ClaimConflictError) as conflict:
        await journal.commit(claim(jobs[2:]))
    await journal.commit(
        JournalBatch(shards=ALL, jobs=[job_row(jobs[0].id, "COMPLETED")], running_deltas={limited.job_type_id: -1})
    )
    await journal.commit(claim(jobs[2:]))

    assert conflict.value.job_ids == (jobs[2].id,)
    assert await running_count(database) == 2


async def test_max_concurrency_holds_with_a_journal_and_a_scheduler_that_claim_at_once(
    database: Database, leases: LeaseStore, make_job: MakeJob, limited: DefinitionRecord
) -> None:
    jobs = [make_job() for _ in range(12)]
    await JobStore(database).insert(jobs)
    journals = [Journal(database, f"q@{number}") for number in range(4)]

    outcomes = await asyncio.gather(
        *(
            journal.commit(claim([job], marks=(ShardMark(number, 1),)))
            for number, journal in enumerate(journals)
            for job in jobs[number * 3 : number * 3 + 3]
        ),
        return_exceptions=True,
    )
    for journal in journals:
        await journal.close()

    assert [outcome for outcome in outcomes if outcome is None] == [None, None]
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {ClaimConflictError}
    assert await running_count(database) == 2


async def test_queens_that_end_jobs_of_the_same_types_in_any_order_do_not_deadlock(
    database: Database, leases: LeaseStore, definition: DefinitionRecord
) -> None:
    await database.fetch(
        "INSERT INTO job_types (job_type, definition_id, version, running_count) "
        "SELECT 'other-' || n, $1::uuid, 1, 0 FROM generate_series(1, 9) AS n",
        definition.id,
    )
    type_ids = [row["id"] for row in await database.fetch("SELECT id FROM job_types ORDER BY id")]
    journals = [Journal(database, f"q@{number}") for number in range(2)]
    orders = (type_ids, type_ids[::-1])

    await asyncio.gather(
        *(
            journals[side].commit(
                JournalBatch(shards=[ShardMark(side, 1)], running_deltas=dict.fromkeys(orders[side], 1))
            )
            for _ in range(30)
            for side in range(2)
        )
    )
    for journal in journals:
        await journal.close()

    counts = await database.fetch("SELECT DISTINCT running_count FROM job_types")
    assert [row["running_count"] for row in counts] == [60]


@pytest.mark.parametrize(
    "changes",
    [{"outputs": "a\0b"}, {"error_message": "\ud800"}, {"exit_code": 2**31}, {"epoch": 2**63}, {"attempt": None}],
    ids=["NUL", "lone surrogate", "int4 range", "int8 range", "missing"],
)
async def test_a_value_that_postgres_refuses_writes_nothing_and_the_next_batch_goes_on(
    database: Database, journal: Journal, changes: dict[str, Any]
) -> None:
    good, bad = new_job_id(), new_job_id()

    with pytest.raises(DataRefusedError):
        await journal.commit(
            JournalBatch(shards=[ShardMark(3, 1, b"new")], tasks=[task_row(good), task_row(bad, **changes)])
        )
    await journal.commit(JournalBatch(shards=[ShardMark(3, 1)], tasks=[task_row(bad)]))

    assert (await tasks_of(database, good), len(await tasks_of(database, bad))) == ([], 1)
    rows = await database.fetch("SELECT results_position FROM leases WHERE shard = 3")
    assert rows[0]["results_position"] is None


async def test_a_batch_with_content_that_names_no_shard_is_a_mistake_of_the_caller(journal: Journal) -> None:
    with pytest.raises(ValueError, match="name the shards"):
        await journal.commit(JournalBatch(tasks=[task_row(new_job_id())]))
    await journal.commit(JournalBatch())


async def test_large_batches_look_rows_up_by_index_without_statistics(
    database: Database, journal: Journal, make_job: MakeJob
) -> None:
    jobs = [make_job() for _ in range(3000)]
    await JobStore(database).insert(jobs)
    await journal.commit(JournalBatch(shards=ALL, tasks=[task_row(job.id) for job in jobs]))
    await database.fetch("SELECT pg_stat_reset()")

    some = jobs[:500]
    await journal.commit(claim(some))
    await journal.commit(JournalBatch(shards=ALL, tasks=[task_row(job.id, state="COMPLETED") for job in some]))
    await journal.close()

    assert await _sequential_reads(database) == {"jobs": 0, "tasks": 0}


async def _sequential_reads(database: Database) -> dict[str, int]:
    async with asyncio.timeout(40):
        while True:
            rows = await database.fetch(
                "SELECT relname, seq_tup_read, n_tup_upd FROM pg_stat_user_tables WHERE relname IN ('jobs', 'tasks')"
            )
            if all(row["n_tup_upd"] > 0 for row in rows):
                return {row["relname"]: row["seq_tup_read"] for row in rows}
            await asyncio.sleep(0.02)


async def test_definitions_share_their_type_row_with_running_journals(
    database: Database, journal: Journal, definition: DefinitionRecord
) -> None:
    await journal.commit(JournalBatch(shards=ALL, running_deltas={definition.job_type_id: 3}))

    newest = await DefinitionStore(database).newest(definition.job_type)

    assert newest == definition
    assert await running_count(database) == 3
