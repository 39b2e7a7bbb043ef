"""Lines that cannot be stored now are stored later; of those that never can, the log itself says so."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from brokers.base import DEAD_SUFFIX
from formicary.bus import Outgoing
from formicary.events import topics
from formicary.events.logs import Line, LogChunk
from formicary.ids import JobId, new_job_id
from formicary.testing.front import QueenFront

AT = datetime(2030, 1, 1, tzinfo=UTC)
FULL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'could not extend file "base/5/16530": No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON task_logs EXECUTE FUNCTION refuse();
"""


def chunk(job_id: JobId, *texts: str, task_no: int = 0) -> Outgoing:
    lines = tuple(Line(number, "stdout", AT, text) for number, text in enumerate(texts, 1))
    event = LogChunk(job_id=job_id, task_no=task_no, attempt=1, lines=lines)
    return Outgoing(topics.LOGS, f"{job_id}/{task_no}", event)


async def stored(front: QueenFront, job_id: JobId, until: Callable[[Sequence[str]], bool]) -> list[str]:
    """Returns the lines of a job, with their streams, once they are as wanted."""
    async with asyncio.timeout(40):
        while True:
            rows = await front.logs.read(job_id, None, None, 0, 1000)
            lines = [f"{row.stream}: {row.line}" for row in sorted(rows, key=lambda row: (row.task_no, row.seq))]
            if until(lines):
                return lines


async def test_lines_wait_for_a_database_without_room_and_none_is_lost(front: QueenFront) -> None:
    await front.execute(FULL)
    jobs = [new_job_id() for _ in range(3)]
    await front.bus.publish([chunk(job_id, "one", "two") for job_id in jobs])
    settled = asyncio.create_task(front.bus.settle(topics.LOGS, topics.LOG_WRITERS))
    done, _ = await asyncio.wait({settled, asyncio.create_task(front.writer.wait())}, timeout=0.5)
    assert not done, "the writer waits, and nobody is told that the lines are safe"
    await front.execute("DROP TRIGGER full_disk ON task_logs")
    await asyncio.wait_for(settled, 40)
    for job_id in jobs:
        assert await stored(front, job_id, bool) == ["stdout: one", "stdout: two"]


async def test_of_a_line_that_no_database_takes_the_log_says_that_it_is_missing(front: QueenFront) -> None:
    job_id, other = new_job_id(), new_job_id()
    dead = await front.broker.subscribe([topics.LOGS + DEAD_SUFFIX], "watchers", "watcher")
    await front.bus.publish(
        [chunk(job_id, "one", "t\0o", "three"), chunk(job_id, "other", task_no=1), chunk(other, "whole")]
    )
    lines = await stored(front, job_id, lambda lines: len(lines) == 4)
    assert [lines[0], *lines[2:]] == ["stdout: one", "stdout: three", "stdout: other"]
    assert lines[1].startswith("system: 1 line was dropped: database: Postgres refuses a value: invalid byte sequence")
    assert await stored(front, other, bool) == ["stdout: whole"]
    (letter,) = await dead.receive(1, 40.0)
    assert b"t\0o" in letter.message.body
