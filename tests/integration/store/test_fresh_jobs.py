"""Jobs that are inserted, claimed and started by one statement of the journal."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.errors import ClaimConflictError
from formicary.store.jobs import JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.rows import HistoryRow, JobRow, JournalBatch, NewJob, ShardMark

NOW = datetime(2026, 2, 3, 4, 5, 6, 789_123, tzinfo=UTC)


def start(job: NewJob) -> JournalBatch:
    return JournalBatch(
        shards=[ShardMark(job.shard, 1)],
        jobs=[JobRow(job.id, "EXECUTING", 1, 0, False, None, None, 0.0, NOW, NOW, None, None, None, None)],
        history=[HistoryRow(job.id, NOW, "EXECUTING", 1, None, None)],
        claims=[job.id],
        fresh=[job],
        leader_epoch=1,
        running_deltas={job.job_type_id: 1},
    )


async def test_the_history_of_a_fresh_job_begins_with_its_submission(
    database: Database, leases: LeaseStore, make_job: Callable[..., NewJob]
) -> None:
    job, journal = make_job(), Journal(database, "q@1")

    await journal.commit(start(job))
    await journal.close()

    assert [row.state for row in await JobStore(database).history(job.id)] == ["PENDING", "EXECUTING"]


async def test_a_fresh_job_of_an_older_definition_is_refused(
    database: Database, leases: LeaseStore, definition: DefinitionRecord, make_job: Callable[..., NewJob]
) -> None:
    stale, journal = make_job(expects_newest=True), Journal(database, "q@1")
    await DefinitionStore(database).save(JobDefinition(job_type=definition.job_type, source="job_type: etl # newer"))

    with pytest.raises(ClaimConflictError) as conflict:
        await journal.commit(start(stale))
    await journal.close()

    assert conflict.value.job_ids == (stale.id,)
    assert await JobStore(database).get(stale.id) is None
