"""What an owner loads: jobs with their tasks, in a fixed number of statements whatever their number."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from formicary.ids import JobId
from formicary.store.database import Database, Record
from formicary.store.jobs import SELECT_TASKS
from formicary.store.rows import JobRecord, TaskRow

SELECT_JOBS = (
    "SELECT j.id::text, j.job_type_id, d.job_type, j.definition_id::text, d.version, j.shard, j.state, j.priority, "
    "j.created_at, j.user_name, j.params, j.rendered_source, j.attempt, j.retries_used, j.cancelling, j.stop_code, "
    "j.stop_message, j.elapsed_s, j.counting_since, j.started_at, j.finished_at, j.error_code, j.error_message, "
    "j.ignores_memo, j.labels, j.scheduled_at FROM jobs j JOIN definitions d ON d.id = j.definition_id"
)
_LIVE = "j.state IN ('READY', 'EXECUTING', 'PAUSED', 'MANUAL_APPROVAL_REQUIRED')"
#: Paused by the manager before any claim: no queen's business.
_UNCLAIMED = "(j.state = 'PAUSED' AND j.started_at IS NULL)"


class LoadedJob(NamedTuple):
    """A job and those of its tasks that ever left PENDING, by number."""

    job: JobRecord
    tasks: list[TaskRow]


class ShardStore:
    """Reads jobs for their owner, who alone changes them meanwhile.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, shard: int) -> list[LoadedJob]:
        """Returns the unfinished jobs of a shard that were claimed, oldest first.

        Call it after the take-over was committed: nobody else changes these rows from then on.
        """
        jobs = await self._database.fetch(
            f"{SELECT_JOBS} WHERE j.shard = $1 AND {_LIVE} AND NOT {_UNCLAIMED} ORDER BY j.id", shard
        )
        return await with_tasks(self._database, jobs)

    async def load_jobs(self, job_ids: Collection[JobId]) -> list[LoadedJob]:
        """Returns these jobs in whatever state, oldest first; unknown ones are left out."""
        jobs = await self._database.fetch(f"{SELECT_JOBS} WHERE j.id = ANY ($1::uuid[]) ORDER BY j.id", list(job_ids))
        return await with_tasks(self._database, jobs)

    async def ready_jobs(self, shards: Collection[int]) -> list[LoadedJob]:
        """Returns the jobs of these shards that were claimed and not begun, oldest first."""
        jobs = await self._database.fetch(
            f"{SELECT_JOBS} WHERE j.shard = ANY ($1::integer[]) AND {_LIVE} AND j.state = 'READY' ORDER BY j.id",
            list(shards),
        )
        return await with_tasks(self._database, jobs, only_restarted=True)


async def with_tasks(database: Database, records: Iterable[Record], *, only_restarted: bool = False) -> list[LoadedJob]:
    """Adds the tasks to jobs, in one statement; ``only_restarted`` leaves out those of first attempts (not begun)."""
    loaded = {row["id"]: LoadedJob(JobRecord(*row.values()), []) for row in records}
    wanted = [item.job.id for item in loaded.values() if not only_restarted or item.job.attempt > 1]
    if wanted:
        rows = await database.fetch(f"{SELECT_TASKS} WHERE job_id = ANY ($1::uuid[]) ORDER BY job_id, task_no", wanted)
        for row in rows:
            loaded[row["job_id"]].tasks.append(TaskRow(*row.values()))
    return list(loaded.values())
