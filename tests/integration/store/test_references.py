"""Who needs which content: rows written with the end of an attempt, gone when their time has come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from formicary.ids import JobId, new_job_id
from formicary.model.holders import Holder, Uses
from formicary.model.jobs import ArtifactRef
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.jobs import JobStore
from formicary.store.journal import Journal
from formicary.store.leases import LeaseStore
from formicary.store.memos import MemoStore, Pin, Result
from formicary.store.references import _EXPIRE, _UNPIN, References
from formicary.store.rows import ArtifactRow, CommandDone, JobRow, JournalBatch, NewJob, ShardMark, TaskRow
from formicary.store.shards import ShardStore

NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
ALL = tuple(ShardMark(shard, 1) for shard in range(16))
NOBODY = Uses(frozenset(), frozenset())
_refs = msgspec.json.Encoder().encode


class Colony:
    """Jobs of one task, as their owner commits them."""

    def __init__(self, database: Database, journal: Journal, make_job: Callable[..., NewJob]) -> None:
        self.database = database
        self.journal = journal
        self.make_job = make_job

    async def job(self) -> JobId:
        job = self.make_job()
        await JobStore(self.database).insert([job])
        return job.id

    async def commit(self, job_id: JobId, job_state: str, state: str, *left: ArtifactRow, attempt: int = 1) -> None:
        artifacts = _refs([{"name": row.name, "sha256": row.sha256, "size_bytes": 1} for row in left]).decode()
        task = TaskRow(
            job_id, 0, state, attempt, 1, 0, 0, 0, False, 1, "ant@1", None, None, None, None, None,
            artifacts if left else None, NOW, None, None, None,
        )  # fmt: skip
        job = JobRow(job_id, job_state, 1, 0, False, None, None, 0.0, NOW, NOW, None, None, None, None)
        await self.journal.commit(JournalBatch(shards=ALL, jobs=[job], tasks=[task], artifacts=left))

    async def end(self, *left: tuple[str, str, datetime | None]) -> JobId:
        """A job that has ended and left artifacts."""
        job_id = await self.job()
        rows = [ArtifactRow(job_id, 0, 1, name, sha256, 1, expires_at) for name, sha256, expires_at in left]
        await self.commit(job_id, "COMPLETED", "COMPLETED", *rows)
        return job_id

    async def artifacts(self, job_id: JobId) -> list[dict[str, Any]]:
        row = await self.database.fetch_one("SELECT artifacts FROM tasks WHERE job_id = $1::uuid", job_id)
        assert row is not None
        found: list[dict[str, Any]] = msgspec.json.decode(row["artifacts"])
        return found


@pytest.fixture
async def colony(database: Database, leases: LeaseStore, make_job: Callable[..., NewJob]) -> AsyncIterator[Colony]:
    journal = Journal(database, "q@1")
    yield Colony(database, journal, make_job)
    await journal.close()


@pytest.fixture
def references(database: Database) -> References:
    return References(database)


async def test_an_attempt_counts_until_its_end_is_committed_and_its_rows_from_then_on(
    colony: Colony, references: References
) -> None:
    job_id = await colony.job()
    holder = Holder(job_id, 0, 1)
    assert await references.uses(["a"], [holder]) == NOBODY

    for state in ("READY", "EXECUTING"):
        await colony.commit(job_id, "EXECUTING", state)
        assert await references.uses(["a"], [holder]) == Uses(frozenset(), frozenset([holder]))

    await colony.commit(job_id, "EXECUTING", "COMPLETED", ArtifactRow(job_id, 0, 1, "x", "a", 1, None))
    assert await references.uses(["a", "b"], [holder]) == Uses(frozenset(["a"]), frozenset())


async def test_an_attempt_that_another_replaced_does_not_count(colony: Colony, references: References) -> None:
    job_id = await colony.job()
    await colony.commit(job_id, "EXECUTING", "EXECUTING", attempt=2)
    holders = [Holder(job_id, 0, 1), Holder(job_id, 0, 2), Holder(job_id, 1, 1), Holder(new_job_id(), 0, 1)]
    assert (await references.uses([], holders)).reporting == {Holder(job_id, 0, 2)}


async def test_names_of_no_job_count_for_nothing(references: References) -> None:
    assert await references.uses([], [Holder("somebody", 0, 1), Holder("", 1, 1)]) == NOBODY


async def test_rows_and_attempts_are_asked_about_in_one_statement(counting: Database, statements: list[str]) -> None:
    # In two, an attempt that is committed in between would be seen by neither.
    await References(counting).uses(["a"], [Holder(new_job_id(), 0, 1)])
    assert len(statements) == 1


async def test_what_expired_goes_and_is_marked(colony: Colony, references: References) -> None:
    job_id = await colony.end(("old", "a", PAST), ("kept", "b", None), ("young", "c", FUTURE))

    assert await references.expire(10) == ["a"]
    assert await references.expire(10) == []

    marked = {ref["name"]: ref.get("is_expired", False) for ref in await colony.artifacts(job_id)}
    assert marked == {"old": True, "kept": False, "young": False}
    assert list(marked) == ["old", "kept", "young"]
    assert (await references.uses(["a", "b", "c"], [])).referenced == {"b", "c"}


async def test_what_expires_first_goes_first(colony: Colony, references: References) -> None:
    for days in (2, 3, 1):
        await colony.end(("x", str(days), PAST - timedelta(days=days)))
    assert [await references.expire(1) for _ in range(4)] == [["3"], ["2"], ["1"], []]


async def test_a_job_that_has_not_ended_keeps_what_expired(colony: Colony, references: References) -> None:
    job_id = await colony.job()
    for state in ("EXECUTING", "PAUSED", "PENDING", "READY"):
        await colony.commit(job_id, state, "COMPLETED", ArtifactRow(job_id, 0, 1, "x", "a", 1, PAST))
        assert await references.expire(10) == []
    await colony.commit(job_id, "FAILED", "COMPLETED")
    assert await references.expire(10) == ["a"]


async def test_a_restart_that_is_being_committed_keeps_what_expired(colony: Colony, references: References) -> None:
    job_id = await colony.end(("x", "a", PAST))
    async with colony.database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE jobs SET state = 'EXECUTING' WHERE id = $1::uuid", job_id)
        assert await references.expire(10) == []
    assert await references.expire(10) == []


async def test_an_expiry_leaves_alone_what_somebody_has_locked_and_waits_for_nobody(
    colony: Colony, references: References
) -> None:
    locked, _ = await colony.end(("x", "a", PAST)), await colony.end(("x", "b", PAST))
    async with colony.database.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM artifacts WHERE job_id = $1::uuid FOR KEY SHARE", locked)
        assert await references.expire(10) == ["b"]
    assert await references.expire(10) == ["a"]


async def test_what_a_restart_is_reading_expires_when_the_restart_was_refused(
    colony: Colony, references: References
) -> None:
    job_id = await colony.end(("x", "a", PAST))
    commands = CommandStore(colony.database)
    number = await commands.issue(job_id, 3, "restart", "{}", None)
    await commands.hold({job_id: number})
    assert await references.expire(10) == []
    assert not (await colony.artifacts(job_id))[0].get("is_expired")

    done = [CommandDone(number, "no")]
    await colony.journal.commit(JournalBatch(shards=ALL, commands_done=done))
    assert await references.expire(10) == ["a"]


async def test_a_restart_waits_for_an_expiry_under_way_and_reads_what_it_marked(
    colony: Colony, references: References
) -> None:
    job_id = await colony.end(("x", "a", PAST))
    commands = CommandStore(colony.database)
    number = await commands.issue(job_id, 3, "restart", "{}", None)
    async with colony.database.connection() as connection, connection.transaction():
        assert await connection.fetch(_EXPIRE, 10)
        holding = asyncio.create_task(commands.hold({job_id: number}))
        await until_somebody_waits(connection)
    await holding
    (loaded,) = await ShardStore(colony.database).load_jobs([job_id])
    assert '"is_expired"' in (loaded.tasks[0].artifacts or "")


async def test_a_result_that_is_about_to_be_taken_is_pinned_until_it_was(
    colony: Colony, references: References
) -> None:
    source, target = await colony.end(("x", "a", PAST)), await colony.job()
    memos = MemoStore(colony.database)
    result = result_of(source)

    assert await memos.pin([Pin(result, Holder(target, 0, 3))]) == [True]
    assert await memos.pin([Pin(result, Holder(target, 0, 3))]) == [True]
    assert await references.expire(10) == ["a"]
    assert (await references.uses(["a"], [])).referenced == {"a"}
    assert await memos.pin([Pin(result, Holder(target, 0, 4))]) == [False]

    await colony.commit(target, "EXECUTING", "READY", attempt=2)
    assert await references.unpin(10) == []
    await colony.commit(target, "EXECUTING", "COMPLETED", attempt=3)
    assert await references.unpin(10) == ["a"]


async def test_results_are_pinned_in_one_statement_each_for_itself(counting: Database, statements: list[str]) -> None:
    memos = MemoStore(counting)
    pins = [Pin(result_of(new_job_id()), Holder(new_job_id(), 0, number)) for number in range(1, 4)]
    assert await memos.pin(pins) == [False, False, False]
    assert len(statements) == 1


async def test_a_pin_whose_job_is_being_restarted_stays(colony: Colony, references: References) -> None:
    source, target = await colony.end(("x", "a", None)), await colony.end()
    memos, pin = MemoStore(colony.database), Pin(result_of(source), Holder(target, 0, 2))
    assert await memos.pin([pin]) == [True]
    async with colony.database.connection() as connection, connection.transaction():
        await connection.execute("UPDATE jobs SET state = 'EXECUTING' WHERE id = $1::uuid", target)
        assert await references.unpin(10) == []
    assert await references.unpin(10) == []
    await colony.commit(target, "CANCELLED", "CANCELLED")
    assert await references.unpin(10) == ["a"]


async def test_a_pin_of_a_deleted_job_goes(colony: Colony, references: References) -> None:
    source, target = await colony.end(("x", "a", None)), new_job_id()
    assert await MemoStore(colony.database).pin([Pin(result_of(source), Holder(target, 0, 1))]) == [True]
    assert await references.unpin(10) == ["a"]


async def test_an_expiry_that_is_being_committed_decides_whether_a_result_can_be_taken(
    colony: Colony, references: References
) -> None:
    source, target = await colony.end(("x", "a", PAST)), await colony.job()
    pin = Pin(result_of(source), Holder(target, 0, 1))
    async with colony.database.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM artifacts")
        pinning = asyncio.create_task(MemoStore(colony.database).pin([pin]))
        await until_somebody_waits(connection)
    assert await pinning == [False]


async def test_pins_and_expiries_of_the_same_artifacts_never_end_in_a_deadlock(
    colony: Colony, references: References
) -> None:
    names = [(f"n{number}", f"s{number}", PAST) for number in range(20)]
    sources = [await colony.end(*names) for _ in range(8)]
    target = await colony.job()
    pins = [Pin(result_of(source), Holder(target, number, 1)) for number, source in enumerate(sources)]
    memos = MemoStore(colony.database)

    async def expire() -> None:
        while await references.expire(7):
            pass

    async with asyncio.timeout(40):
        await asyncio.gather(expire(), expire(), *(memos.pin(pins[::step]) for step in (1, -1, 1, -1)))


async def test_a_look_at_many_references_that_stay_costs_little(colony: Colony) -> None:
    job_id = await colony.end()
    async with colony.database.connection() as connection:
        await connection.execute(
            "INSERT INTO artifacts SELECT $1::uuid, n % 1000, 1, n, 'c' || n, 1, "
            "CASE WHEN n % 2 = 0 THEN now() + interval '1 day' END FROM generate_series(1, 20000) AS n",
            job_id,
        )
        await connection.execute("ANALYZE artifacts")
        for statement in (_EXPIRE, _UNPIN):
            async with connection.transaction():
                await connection.fetch(statement, 1000)
                reads = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'artifacts'"
                assert await connection.fetchval(reads) < 100


def result_of(source: JobId) -> Result:
    return Result(source, 0, 1, 0, None, (ArtifactRef(name="x", sha256="a", size_bytes=1),))


async def until_somebody_waits(connection: Any) -> None:
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - a row
        await asyncio.sleep(0.01)


async def test_a_late_repetition_of_an_end_changes_no_row(colony: Colony, references: References) -> None:
    job_id = await colony.end(("x", "a", PAST))
    await colony.commit(job_id, "COMPLETED", "COMPLETED", ArtifactRow(job_id, 0, 1, "x", "b", 1, None))
    assert (await references.uses(["a", "b"], [])).referenced == {"a"}


async def test_every_colony_has_an_id_of_its_own(database: Database, references: References) -> None:
    assert await references.colony_id() == await References(database).colony_id()
