"""The newest fitting result is found, of tasks as they are and of attempts that were replaced since."""

from datetime import UTC, datetime, timedelta
from typing import Any

from formicary.ids import JobId
from formicary.model.jobs import ArtifactRef
from formicary.store.database import Database
from formicary.store.memos import MemoStore, Result, Wanted

MEMO, OTHER = "a" * 64, "b" * 64


async def add(database: Database, job_no: int, table: str = "tasks", **changes: Any) -> JobId:
    """Writes a run that completed ``age_s`` ago under ``MEMO``."""
    job_id = f"00000000-0000-7000-8000-{job_no:012}"
    age_s = changes.pop("age_s", 0.0)
    row = {"job_id": job_id, "task_no": 0, "state": "COMPLETED", "attempt": 1, "job_attempt": 1, "memo": MEMO}
    if table == "tasks":
        row |= {"retries_used": 0, "polls_used": 0, "ants_lost": 0, "is_excepted": False, "epoch": 1}
    row |= {"finished_at": datetime.now(UTC) - timedelta(seconds=age_s), **changes}
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    async with database.connection() as connection:
        await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())
    return JobId(job_id)


async def found(database: Database, max_age_s: float | None = None) -> Result | None:
    (result,) = await MemoStore(database).find([wanted(MEMO, max_age_s)])
    return result


def wanted(memo: str, max_age_s: float | None = None) -> Wanted:
    return Wanted(memo, None if max_age_s is None else datetime.now(UTC) - timedelta(seconds=max_age_s))


async def test_a_result_comes_back_whole(database: Database) -> None:
    artifacts = '[{"name": "x", "sha256": "00", "size_bytes": 3}]'
    job_id = await add(database, 1, attempt=4, exit_code=3, outputs='{"rows": [1, "ü"]}', artifacts=artifacts)
    ref = ArtifactRef(name="x", sha256="00", size_bytes=3)
    assert await found(database) == Result(job_id, 0, 4, 3, {"rows": [1, "ü"]}, (ref,))


async def test_the_newest_is_taken_wherever_it_is(database: Database) -> None:
    await add(database, 1, age_s=20)
    former = await add(database, 2, "task_attempts", age_s=10)
    assert (await found(database) or Result(*[None] * 6)).job_id == former  # type: ignore[arg-type]  # none was found
    newest = await add(database, 3, age_s=5)
    assert (await found(database) or Result(*[None] * 6)).job_id == newest  # type: ignore[arg-type]  # none was found


async def test_what_did_not_complete_or_was_taken_itself_or_is_too_old_is_no_result(database: Database) -> None:
    await add(database, 1, state="FAILED")
    await add(database, 2, state="EXECUTING")
    await add(database, 3, "task_attempts", state="CANCELLED")
    await add(database, 4, memo=OTHER)
    await add(database, 5, reused_from="{}")
    await add(database, 6, age_s=100)
    assert await found(database, 60.0) is None
    assert await found(database, 1000.0) is not None


async def test_many_are_looked_for_at_once_each_for_itself(database: Database) -> None:
    first = await add(database, 1)
    second = await add(database, 2, memo=OTHER, age_s=50)
    asked = [wanted(OTHER, 10.0), wanted(MEMO), wanted("c"), wanted(OTHER), wanted(MEMO)]
    results = await MemoStore(database).find(asked)
    assert [result and result.job_id for result in results] == [None, first, None, second, first]


async def test_a_look_reads_by_the_index_whatever_else_there_is(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SET enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN SELECT FROM tasks WHERE memo = $1", MEMO)
    assert "tasks_by_memo" in str(plan)
