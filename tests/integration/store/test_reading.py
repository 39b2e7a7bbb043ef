"""Definitions, commands, output, and what an owner loads."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from formicary.clock import SystemClock
from formicary.errors import LoginRefusedError, UnavailableError
from formicary.events.logs import Line, LogChunk
from formicary.ids import JobId, new_job_id
from formicary.model.definition import JobDefinition
from formicary.patience import Patience
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.errors import DataRefusedError
from formicary.store.jobs import JobStore
from formicary.store.logs import LogStore
from formicary.store.rows import CommandRow, NewJob
from formicary.store.shards import ShardStore

MakeJob = Callable[..., NewJob]
NOW = datetime(2026, 2, 3, 4, 5, 6, 789_123, tzinfo=UTC)


def _definition(job_type: str, source: str) -> JobDefinition:
    return JobDefinition(job_type=job_type, source=source)


async def test_each_changed_upload_makes_a_version_and_an_unchanged_one_none(database: Database) -> None:
    store = DefinitionStore(database)

    saved = [await store.save(_definition("etl", source)) for source in ("one", "one", "two", "one")]

    assert [(record.version, is_new) for record, is_new in saved] == [(1, True), (1, False), (2, True), (3, True)]
    assert len({record.job_type_id for record, _ in saved}) == 1
    assert await store.newest("etl") == saved[3][0]
    assert await store.version("etl", 2) == saved[2][0]
    assert await store.by_id(saved[0][0].id) == saved[0][0]
    assert [record.version for record in await store.versions("etl")] == [3, 2, 1]
    assert (await store.newest("unknown"), await store.version("etl", 4), await store.version("etl", 2**40)) == (
        None,
        None,
        None,
    )


async def test_uploads_of_one_type_at_once_get_versions_without_gaps(database: Database) -> None:
    store = DefinitionStore(database)

    saved = await asyncio.gather(*(store.save(_definition("etl", str(number))) for number in range(6)))

    assert sorted(record.version for record, _ in saved) == [1, 2, 3, 4, 5, 6]


async def test_job_types_are_listed_by_name_page_by_page(database: Database) -> None:
    store = DefinitionStore(database)
    for name in ("b", "d", "a"):
        await store.save(_definition(name, name))

    page, cursor = await store.list(2, None)
    await store.save(_definition("aa", "x"))
    rest, end = await store.list(2, cursor)

    assert [record.job_type for record in (*page, *rest)] == ["a", "b", "d"]
    assert end is None


async def test_commands_come_in_the_order_of_their_issue_for_the_shards_asked(database: Database) -> None:
    store, job_id = CommandStore(database), new_job_id()
    first = await store.issue(job_id, 3, "pause", "{}", "u")
    await store.issue(job_id, 4, "cancel", "{}", None)
    second = await store.issue(job_id, 3, "restart", '{"mode": "all"}', None)

    assert await store.open([3]) == [
        CommandRow(first, job_id, 3, "pause", "{}"),
        CommandRow(second, job_id, 3, "restart", '{"mode": "all"}'),
    ]
    assert await store.outcome(first) == (False, None)


def _chunk(job_id: JobId, *seqs: int, task_no: int = 0, attempt: int = 1) -> LogChunk:
    lines = tuple(Line(seq, "stdout", NOW, f"line {seq}") for seq in seqs)
    return LogChunk(job_id=job_id, task_no=task_no, attempt=attempt, lines=lines)


async def test_output_arrives_once_however_often_it_is_delivered(counting: Database, statements: list[str]) -> None:
    store, job_id = LogStore(counting), new_job_id()

    await store.append([_chunk(job_id, 1, 2), _chunk(job_id, 2, 3)])
    await store.append([_chunk(job_id, 1, 2, 3, 4), _chunk(job_id, 1, task_no=1)])
    assert len(statements) == 2

    rows = await store.read(job_id, None, None, 0, 100)
    assert [(row.task_no, row.seq, row.line) for row in rows] == [
        (0, 1, "line 1"),
        (0, 2, "line 2"),
        (0, 3, "line 3"),
        (0, 4, "line 4"),
        (1, 1, "line 1"),
    ]
    assert rows[0].at == NOW


async def test_output_is_read_by_task_attempt_and_page(database: Database) -> None:
    store, job_id = LogStore(database), new_job_id()
    await store.append([_chunk(job_id, 1, 2), _chunk(job_id, 1, attempt=2), _chunk(job_id, 1, task_no=1)])
    await store.append([_chunk(new_job_id(), 1)])

    assert len(await store.read(job_id, 0, None, 0, 100)) == 3
    assert [row.attempt for row in await store.read(job_id, 0, 2, 0, 100)] == [2]
    page = await store.read(job_id, None, None, 0, 3)
    assert len(page) == 3
    assert [row.task_no for row in await store.read(job_id, None, None, page[-1].arrival, 3)] == [1]


async def test_a_follower_misses_no_line_while_many_writers_append(database: Database) -> None:
    store, job_id, seen, after = LogStore(database), new_job_id(), list[tuple[int, int]](), 0
    writers = asyncio.gather(
        *(store.append([_chunk(job_id, *range(n, n + 5), task_no=task)]) for task in range(8) for n in (1, 6, 11))
    )
    while not writers.done() or len(seen) < 120:
        rows = await store.read(job_id, None, None, after, 7)
        seen += [(row.task_no, row.seq) for row in rows]
        if rows:
            after = rows[-1].arrival
        elif writers.done():
            break

    assert len(seen) == len(set(seen)) == 120


async def test_output_that_postgres_refuses_writes_nothing(database: Database) -> None:
    store, job_id = LogStore(database), new_job_id()
    bad = LogChunk(job_id=job_id, task_no=0, attempt=1, lines=(Line(1, "stdout", NOW, "a\0b"),))

    with pytest.raises(DataRefusedError):
        await store.append([_chunk(job_id, 2), bad])

    assert await store.read(job_id, None, None, 0, 10) == []


async def _give_tasks(database: Database, job_id: JobId, count: int) -> None:
    await database.fetch(
        "INSERT INTO tasks (job_id, task_no, state, attempt, job_attempt, retries_used, polls_used, ants_lost, "
        "is_excepted, epoch) SELECT $1::uuid, n, 'READY', 1, 1, 0, 0, 0, false, 1 FROM generate_series(0, $2 - 1) AS n",
        job_id,
        count,
    )


async def test_an_owner_loads_the_claimed_unfinished_jobs_of_its_shard_with_two_statements(
    counting: Database, statements: list[str], make_job: MakeJob
) -> None:
    states = ["PENDING", "READY", "EXECUTING", "PAUSED", "PAUSED", "COMPLETED", "EXECUTING"]
    jobs = [make_job(shard=3) for _ in states[:-1]] + [make_job(shard=4)]
    await JobStore(counting).insert(jobs)
    for number, (job, state) in enumerate(zip(jobs, states, strict=True)):
        started_at = NOW if number != 4 else None
        await counting.fetch(
            "UPDATE jobs SET state = $2, started_at = $3 WHERE id = $1::uuid", job.id, state, started_at
        )
        await _give_tasks(counting, job.id, number)
    statements.clear()

    loaded = await ShardStore(counting).load(3)

    assert {item.job.id: len(item.tasks) for item in loaded} == {jobs[1].id: 1, jobs[2].id: 2, jobs[3].id: 3}
    assert len(statements) == 2


async def test_jobs_are_loaded_by_id_in_any_state_and_ready_ones_by_shard(
    database: Database, make_job: MakeJob
) -> None:
    store, jobs = ShardStore(database), [make_job(shard=3), make_job(shard=4)]
    await JobStore(database).insert(jobs)
    await database.fetch("UPDATE jobs SET state = 'COMPLETED' WHERE id = $1::uuid", jobs[0].id)
    await database.fetch("UPDATE jobs SET state = 'READY' WHERE id = $1::uuid", jobs[1].id)
    await _give_tasks(database, jobs[0].id, 2)

    loaded = await store.load_jobs([jobs[0].id, jobs[1].id, new_job_id()])

    assert {item.job.id: (item.job.state, len(item.tasks)) for item in loaded} == {
        jobs[0].id: ("COMPLETED", 2),
        jobs[1].id: ("READY", 0),
    }
    assert [item.job.id for item in await store.ready_jobs([3, 4])] == [jobs[1].id]
    assert await store.ready_jobs([3]) == []


async def test_a_database_that_is_not_there_is_unavailable_and_given_up_in_time() -> None:
    database = Database("postgresql://x@127.0.0.1:1/none", connect_timeout_s=1)

    with pytest.raises(UnavailableError):
        await database.ping()
    with pytest.raises(UnavailableError):
        await Patience(SystemClock(), give_up_after_s=0.2).wait_out("database_away", database.open)
    await database.close()


async def test_wrong_urls_and_unknown_databases_are_not_waited_for(url: str) -> None:
    for wrong in ("nonsense://x", url.replace("/test_", "/absent_"), url.replace("formicary@", "stranger@")):
        database = Database(wrong, connect_timeout_s=1)
        with pytest.raises(LoginRefusedError, match="the database refuses FORMICARY_DATABASE_URL: "):
            await Patience(SystemClock()).wait_out("database_away", database.open)
        await database.close()


async def test_a_database_that_is_gone_from_its_server_is_told_from_one_that_cannot_be_reached(
    database: Database, url: str, empty_url: str
) -> None:
    name = urlsplit(url).path.removeprefix("/")
    onlooker = Database(empty_url, min_size=1, max_size=1)
    await onlooker.open()
    await onlooker.fetch(f"DROP DATABASE {name} WITH (FORCE)")
    await onlooker.close()

    async with asyncio.timeout(40):
        assert "does not exist" in await _refusal(database)


async def _refusal(database: Database) -> str:
    while True:
        try:
            await database.ping()
        except LoginRefusedError as error:
            return str(error)
        except UnavailableError:
            continue  # of a connection that was there


async def test_a_pool_recovers_after_its_connections_were_ended(database: Database, url: str) -> None:
    other = Database(url, min_size=1, max_size=1)
    await other.open()
    await other.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await other.close()

    async with asyncio.timeout(40):
        while not await _answers(database):
            pass


async def _answers(database: Database) -> bool:
    try:
        await database.ping()
    except UnavailableError:
        return False
    return True
