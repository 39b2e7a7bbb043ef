"""What one batch of the hot loop changed: collected while stepping, turned into rows once, when it is committed."""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import msgspec

from formicary.bus import Outgoing
from formicary.ids import JobId
from formicary.queen.supervisor.live import LiveJob, LiveShard, Receipt
from formicary.queen.supervisor.rows import (
    artifact_rows,
    attempt_row,
    job_row,
    storable,
    stored_end,
    task_changes,
    task_row,
)
from formicary.store.jobs import StoredJob
from formicary.store.rows import (
    ArtifactRow,
    AttemptRow,
    CommandDone,
    HistoryRow,
    JobRow,
    JournalBatch,
    NewJob,
    ShardMark,
    TaskRow,
)


class Fresh(NamedTuple):
    """A submission that starts in the commit that inserts it.

    ``is_begun`` becomes True once that is certain, False where nothing is known of it; whoever stops waiting cancels
    it.
    """

    row: NewJob
    is_begun: asyncio.Future[bool]

    def answer(self, is_begun: bool) -> None:
        """Tells who waits."""
        if not self.is_begun.done():
            self.is_begun.set_result(is_begun)


class Batch:
    """Changes that will be committed together, and the messages that leave after that.

    ``fresh`` are claims of jobs that are in no table yet, with their rows and with who waits to hear of them;
    ``counts`` holds per job by how much it changes the running count of its type: +1 for a claim, -1 for an end.
    ``waiters`` are told once the batch is committed and its messages are with the broker.
    """

    __slots__ = (
        "_by_id",
        "claims",
        "commands_done",
        "counts",
        "ended",
        "fresh",
        "jobs",
        "leader_epoch",
        "moves_positions",
        "outgoing",
        "receipt",
        "shards",
        "waiters",
    )

    def __init__(self) -> None:
        self.jobs: dict[LiveJob, None] = {}
        self.shards: dict[LiveShard, None] = {}
        self.outgoing: list[Outgoing] = []
        self.commands_done: dict[LiveShard, list[CommandDone]] = {}
        self.moves_positions = False
        self.claims: dict[LiveJob, None] = {}
        self.fresh: dict[LiveJob, Fresh] = {}
        self.leader_epoch: int | None = None
        self.counts: dict[LiveJob, int] = {}
        self.ended: list[JobId] = []
        self.waiters: list[asyncio.Event] = []
        self.receipt = Receipt()
        self._by_id: dict[JobId, LiveJob] | None = None

    def is_empty(self) -> bool:
        """Says whether there is nothing to commit; positions alone wait for the next change, or for the next tick."""
        return not (self.jobs or self.commands_done or self.outgoing or self.waiters or self.moves_positions)

    def touch(self, live: LiveJob) -> None:
        """Notes that the job changed."""
        self.jobs[live] = None
        self.shards[live.shard] = None

    def done(self, command: CommandDone, shard: LiveShard) -> None:
        """Notes that a person's command was applied or refused."""
        self.commands_done.setdefault(shard, []).append(command)
        self.shards[shard] = None

    def move_positions(self, shard: LiveShard) -> None:
        """Notes that the shard's logs were read further, whatever else is committed."""
        self.shards[shard] = None
        self.moves_positions = True

    def claim(self, live: LiveJob, leader_epoch: int) -> None:
        """Notes that the job is taken from PENDING by this batch."""
        self.claims[live] = None
        self.leader_epoch = leader_epoch
        self.counts[live] = self.counts.get(live, 0) + 1

    def submit(self, live: LiveJob, fresh: "Fresh", leader_epoch: int) -> None:
        """Notes that the job is inserted and claimed by this batch."""
        self.fresh[live] = fresh
        self.claim(live, leader_epoch)

    def answer(self, *, is_committed: bool) -> None:
        """Tells those who wait for fresh jobs what became of them."""
        for live, fresh in self.fresh.items():
            fresh.answer(is_committed and not live.is_void)

    def end(self, live: LiveJob) -> None:
        """Notes that the job is over."""
        self.ended.append(live.id)
        self.counts[live] = self.counts.get(live, 0) - 1

    def requeue(self, live: LiveJob) -> None:
        """Notes that the job, which had ended, is PENDING again."""
        self.ended.append(live.id)

    def close(self, now: datetime) -> JournalBatch:
        """Returns the rows of everything that changed; takes the changes from the runs."""
        jobs: list[JobRow] = []
        tasks: list[TaskRow] = []
        attempts: list[AttemptRow] = []
        history: list[HistoryRow] = []
        artifacts: list[ArtifactRow] = []
        for live in self.jobs:
            if not live.is_void:
                if live.run.left:
                    artifacts.extend(artifact_rows(live.id, live.run.left))
                    live.run.left.clear()
                _collect(live, now, jobs, tasks, attempts, history)
        self.counts = {live: change for live, change in self.counts.items() if not live.is_void}
        return JournalBatch(
            shards=sorted(_mark(shard) for shard in self.shards if not shard.is_dropped),
            jobs=jobs,
            tasks=tasks,
            attempts=attempts,
            artifacts=artifacts,
            history=history,
            commands_done=[command for commands in self.commands_done.values() for command in commands],
            claims=[live.id for live in self.claims if not live.is_void],
            fresh=[fresh.row for live, fresh in self.fresh.items() if not live.is_void],
            leader_epoch=self.leader_epoch,
            running_deltas=self.running_deltas(),
        )

    def ended_job(self, job_id: JobId) -> StoredJob | None:
        """Returns a job as this batch ended it, if it did; to be asked once it is committed."""
        if self._by_id is None:
            self._by_id = {live.id: live for live in self.jobs}
        found = self._by_id.get(job_id)
        return stored_end(found) if found is not None and not found.is_void else None

    def running_deltas(self, only: Collection[JobId] | None = None) -> dict[int, int]:
        """Returns by how much the running counts change, per job type id; of the jobs named only, if any are."""
        deltas: dict[int, int] = {}
        for live, change in self.counts.items():
            if only is None or live.id in only:
                job_type_id = live.record.job_type_id
                deltas[job_type_id] = deltas.get(job_type_id, 0) + change
        return {job_type_id: change for job_type_id, change in deltas.items() if change}

    def forget(self, job_ids: Collection[JobId]) -> None:
        """Takes the messages and the news of jobs back that will not be committed."""
        self.outgoing = [out for out in self.outgoing if getattr(out.event, "job_id", None) not in job_ids]
        self.ended = [job_id for job_id in self.ended if job_id not in job_ids]

    def forget_shard(self, shard: LiveShard) -> None:
        """Takes everything about a dropped shard back, also of jobs that ended in this batch and left the shard."""
        self.shards.pop(shard, None)
        self.commands_done.pop(shard, None)
        gone = [live for live in self.jobs if live.shard is shard]
        for live in gone:
            live.is_void = True
            if live in self.fresh:
                self.fresh[live].answer(False)
        self.forget({live.id for live in gone})
        self.outgoing = [out for out in self.outgoing if getattr(out.event, "shard", None) != shard.number]


def _mark(shard: LiveShard) -> ShardMark:
    return ShardMark(shard.number, shard.epoch, shard.results_position, shard.launch_position)


def _collect(
    live: LiveJob,
    now: datetime,
    jobs: list[JobRow],
    tasks: list[TaskRow],
    attempts: list[AttemptRow],
    history: list[HistoryRow],
) -> None:
    run, job_id = live.run, live.id
    cells = run.tasks
    tasks.extend([task_row(job_id, cells[number]) for number in run.changed_tasks])
    if live.program.definition.task_events:
        history.extend(task_changes(live, now))
    run.changed_tasks.clear()
    if run.archived:
        attempts.extend([attempt_row(job_id, cell) for cell in run.archived])
        run.archived.clear()
    if not run.job_changed and not live.waiting_changed:
        return
    run.job_changed = live.waiting_changed = False
    cell = run.job
    jobs.append(job_row(cell, live.waiting_for))
    recorded = (cell.state, cell.attempt)
    if recorded != live.recorded:
        live.recorded = recorded
        history.append(HistoryRow(job_id, now, cell.state, cell.attempt, cell.error_code, storable(cell.error_message)))


def job_ids_of(rows: JournalBatch) -> set[JobId]:
    """Returns the jobs of which there are rows."""
    ids = {row.id for row in rows.jobs}
    ids.update(row.job_id for row in rows.tasks)
    ids.update(row.job_id for row in rows.attempts)
    ids.update(row.job_id for row in rows.history)
    return {JobId(job_id) for job_id in ids}


def rows_of(rows: JournalBatch, job_ids: Collection[JobId], running_deltas: dict[int, int]) -> JournalBatch:
    """Returns the rows of some jobs, with everything that belongs to none; ``running_deltas`` are those of the jobs."""
    return msgspec.structs.replace(
        rows,
        jobs=[row for row in rows.jobs if row.id in job_ids],
        tasks=[row for row in rows.tasks if row.job_id in job_ids],
        attempts=[row for row in rows.attempts if row.job_id in job_ids],
        artifacts=[row for row in rows.artifacts if row.job_id in job_ids],
        history=[row for row in rows.history if row.job_id in job_ids],
        claims=[job_id for job_id in rows.claims if job_id in job_ids],
        fresh=[row for row in rows.fresh if row.id in job_ids],
        running_deltas=running_deltas,
    )
