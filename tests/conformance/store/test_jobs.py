"""Submissions, claims, loads, and what people change before a claim."""

from datetime import UTC, datetime, timedelta
from typing import Any

from formicary.ids import QueenId, new_job_id
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.store.jobs import InsertOutcome


async def test_due_jobs_come_by_priority_then_due_time(stores: Any, definition: DefinitionRecord) -> None:
    now = datetime.now(UTC)
    old = stores.job(definition, due_at=now - timedelta(hours=2))
    new = stores.job(definition, due_at=now - timedelta(hours=1))
    urgent = stores.job(definition, priority=5)
    later_at = now + timedelta(hours=1)
    later = stores.job(definition, priority=9, due_at=later_at, scheduled_at=later_at)
    await stores.jobs.insert([new, later, old, urgent])

    assert [item.job.id for item in await stores.claims.peek(10, ())] == [urgent.id, old.id, new.id]
    assert [item.job.id for item in await stores.claims.peek(1, ())] == [urgent.id]
    assert [item.job.id for item in await stores.claims.peek(10, (old.id,))] == [urgent.id, new.id]
    assert await stores.claims.outlook() == (later_at, False)


async def test_the_outlook_says_whether_jobs_of_a_limited_type_wait(stores: Any, definition: DefinitionRecord) -> None:
    limited = await stores.save(JobDefinition(job_type="one", source="job_type: one", max_concurrency=1))
    await stores.jobs.insert([stores.job(definition)])
    assert await stores.claims.outlook() == (None, False)

    await stores.jobs.insert([stores.job(limited)])

    assert await stores.claims.outlook() == (None, True)


async def test_claims_for_other_owners_stop_at_the_limit_and_are_counted(stores: Any) -> None:
    limited = await stores.save(JobDefinition(job_type="three", source="job_type: three", max_concurrency=3))
    jobs = [stores.job(limited, priority=number, shard=2) for number in range(4)]
    await stores.jobs.insert(jobs)
    await stores.leases.take(["leader"], QueenId("q"), "q@1", 60)

    claimed = await stores.claims.claim_ready([job.id for job in jobs], 1)
    again = await stores.claims.claim_ready([job.id for job in jobs], 1)

    assert (set(claimed), again) == ({job.id for job in jobs[1:]}, [])
    assert {item.job.id for item in await stores.shards.ready_jobs([2])} == set(claimed)
    assert await stores.shards.ready_jobs([1]) == []
    assert [row.state for row in await stores.jobs.history(jobs[3].id)] == ["PENDING", "READY"]
    assert [blocked.running_count for blocked in await stores.claims.blocked()] == [3]


async def test_jobs_being_claimed_use_up_their_types_room(stores: Any) -> None:
    limited = await stores.save(JobDefinition(job_type="two", source="job_type: two", max_concurrency=2))
    jobs = [stores.job(limited, priority=-number) for number in range(3)]
    await stores.jobs.insert(jobs)

    assert [item.job.id for item in await stores.claims.peek(10, (jobs[0].id,))] == [jobs[1].id]


async def test_a_job_of_a_queen_whose_clock_is_ahead_is_due_at_once(stores: Any, definition: DefinitionRecord) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    job = stores.job(definition, due_at=ahead, created_at=ahead)
    await stores.jobs.insert([job])

    assert [item.job.id for item in await stores.claims.peek(10, ())] == [job.id]


async def test_inserting_again_changes_nothing(stores: Any, definition: DefinitionRecord) -> None:
    job = stores.job(definition)

    assert await stores.jobs.insert([job]) == await stores.jobs.insert([job]) == [(job.id, InsertOutcome.CREATED)]
    assert len(await stores.jobs.history(job.id)) == 1


async def test_a_key_gives_its_first_job_and_refuses_another_body(stores: Any, definition: DefinitionRecord) -> None:
    first, same, other = (
        stores.job(definition, idempotency_key="k", body_sha256=body) for body in ("one", "one", "two")
    )

    assert await stores.jobs.insert([first, same, other]) == [
        (first.id, InsertOutcome.CREATED),
        (first.id, InsertOutcome.EXISTING),
        (first.id, InsertOutcome.KEY_CONFLICT),
    ]


async def test_an_unclaimed_job_is_paused_resumed_and_cancelled_by_its_row(
    stores: Any, definition: DefinitionRecord
) -> None:
    job = stores.job(definition, shard=1)
    await stores.jobs.insert([job])

    kinds = ("resume", "pause", "resume", "cancel", "pause")
    changes = [await stores.jobs.change_pending(job.id, kind, "asked") for kind in kinds]

    found = [(change.is_applied, change.found) for change in changes]
    assert found == [(False, "PENDING"), (True, "PENDING"), (True, "PAUSED"), (True, "PENDING"), (False, "CANCELLED")]
    assert (await stores.jobs.change_pending(new_job_id(), "cancel", "")).found is None
    assert [row.state for row in await stores.jobs.history(job.id)] == ["PENDING", "PAUSED", "PENDING", "CANCELLED"]


async def test_an_owner_loads_what_was_claimed_and_has_not_ended(stores: Any, definition: DefinitionRecord) -> None:
    pending, paused, ready, elsewhere = (stores.job(definition, shard=shard) for shard in (3, 3, 3, 2))
    await stores.jobs.insert([pending, paused, ready, elsewhere])
    await stores.jobs.change_pending(paused.id, "pause", "asked")
    await stores.leases.take(["leader"], QueenId("q"), "q@1", 60)
    await stores.claims.claim_ready([ready.id, elsewhere.id], 1)

    assert [(item.job.id, item.job.state) for item in await stores.shards.load(3)] == [(ready.id, "READY")]
    known = await stores.shards.load_jobs([pending.id, paused.id, new_job_id()])
    assert {item.job.id: item.job.state for item in known} == {pending.id: "PENDING", paused.id: "PAUSED"}
    loaded = await stores.definitions.by_id(definition.id)
    assert loaded is not None
    assert loaded.source == definition.source
