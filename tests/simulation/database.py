"""The database's tables and the rules of its functions (``formicary/store/functions.sql``), in memory.

Each method is one statement: it happens whole, at one moment, or raises and changes nothing.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from formicary.ids import JobId
from formicary.model.definition import DefinitionRecord
from formicary.model.states import JobState
from formicary.store.claims import EXPLAINED_COUNT, BlockedType, Outlook
from formicary.store.commands import CommandOutcome
from formicary.store.errors import ClaimConflictError, FencedError, NotCommittedError
from formicary.store.jobs import Inserted, InsertOutcome, PendingChange, _pending_change
from formicary.store.memos import Result
from formicary.store.rows import (
    AttemptRow,
    CommandRow,
    HistoryRow,
    JobRecord,
    JobRow,
    JournalBatch,
    NewJob,
    ShardMark,
    TaskRow,
)
from formicary.store.shards import LoadedJob
from tests.simulation.lease_table import LeaseTable
from tests.simulation.tables import NEVER, Command, Job, JobType, Key, Lease, refuse

_LIVE: Final = frozenset({"READY", "EXECUTING", "PAUSED", "MANUAL_APPROVAL_REQUIRED"})


class MemoryDatabase(LeaseTable):
    """One database. ``now`` is its clock."""

    def __init__(self, shard_count: int, now: Callable[[], datetime]) -> None:
        super().__init__(shard_count, now)
        self.definitions: dict[str, DefinitionRecord] = {}
        self.job_types: dict[int, JobType] = {}
        self.jobs: dict[JobId, Job] = {}
        self.tasks: dict[JobId, dict[int, TaskRow]] = {}
        self.attempts: dict[tuple[str, int, int], AttemptRow] = {}
        self.history: list[HistoryRow] = []
        self.commands: dict[int, Command] = {}
        self.keys: dict[str, Key] = {}

    def add_definition(self, record: DefinitionRecord, max_concurrency: int | None) -> None:
        """Stores a definition as its type's newest version."""
        self.definitions[record.id] = record
        former = self.job_types.get(record.job_type_id)
        self.job_types[record.job_type_id] = JobType(
            record.job_type_id,
            record.job_type,
            record.id,
            record.version,
            max_concurrency,
            0 if former is None else former.running_count,
        )

    def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Mirrors ``submit_jobs``, but for STALE."""
        answers = []
        for job in jobs:
            key = (
                None
                if job.idempotency_key is None
                else self.keys.setdefault(job.idempotency_key, Key(job.body_sha256, job.id))
            )
            if key is not None and key.body_sha256 != job.body_sha256:
                answers.append(Inserted(key.job_id, InsertOutcome.KEY_CONFLICT))
            elif key is not None and key.job_id != job.id:
                answers.append(Inserted(key.job_id, InsertOutcome.EXISTING))
            else:
                self._create(job)
                answers.append(Inserted(job.id, InsertOutcome.CREATED))
        return answers

    def _create(self, job: NewJob) -> None:
        if job.id in self.jobs:
            return
        definition = self.definitions[job.definition_id]
        record = JobRecord(
            job.id, job.job_type_id, definition.job_type, definition.id, definition.version, job.shard, "PENDING",
            job.priority, job.created_at, job.user_name, job.params, job.rendered_source, 1, 0, False, None, None, 0.0,
            None, None, None, None, None,
        )  # fmt: skip
        due_at = min(job.due_at, self.now()) if job.scheduled_at is None else job.due_at
        self.jobs[job.id] = Job(record, due_at, job.scheduled_at, job.labels)
        self.history.append(HistoryRow(job.id, job.created_at, "PENDING", 1, None, None))

    def result(self, memo: str, since: datetime | None) -> Result | None:
        """Mirrors ``MemoStore.find``, for one digest."""
        rows: list[TaskRow | AttemptRow] = [
            *(task for tasks in self.tasks.values() for task in tasks.values()),
            *self.attempts.values(),
        ]
        known = [
            row
            for row in rows
            if (row.memo, row.state, row.reused_from) == (memo, "COMPLETED", None)
            and row.finished_at is not None
            and (since is None or row.finished_at > since)
        ]
        if not known:
            return None
        row = max(known, key=lambda row: row.finished_at or NEVER)
        outputs = None if row.outputs is None else json.loads(row.outputs)
        return Result(JobId(row.job_id), row.task_no, row.attempt, row.exit_code, outputs, ())

    def change_pending(self, job_id: JobId, kind: str, note: str) -> PendingChange:
        """Mirrors ``JobStore.change_pending``."""
        job = self.jobs.get(job_id)
        if job is None:
            return PendingChange(is_applied=False, found=None)
        found = JobState(job.record.state)
        state = _pending_change(kind, found, is_unclaimed=job.record.started_at is None)
        if state is not None:
            code = "ERR_CANCELLED" if state is JobState.CANCELLED else None
            job.waiting_for = None
            job.record = job.record._replace(
                state=state.value, error_code=code, error_message=note if code else None,
                finished_at=self.now() if code else None,
            )  # fmt: skip
            self.history.append(HistoryRow(job_id, self.now(), state.value, job.record.attempt, code, note))
        return PendingChange(is_applied=state is not None, found=found)

    def set_waiting(self, reasons: Mapping[JobId, str | None]) -> None:
        """Mirrors ``JobStore.set_waiting``."""
        for job_id, reason in reasons.items():
            job = self.jobs.get(job_id)
            if job is not None and job.record.state == "PENDING":
                job.waiting_for = reason

    def journal_commit(self, incarnation: str, number: int, batch: JournalBatch) -> None:
        """Mirrors ``journal_commit``: fences, checks the claims, writes rows, positions and the mark."""
        refuse(batch)
        self.check_leader(batch)
        self.check_epochs(batch.shards)
        self.check_number(incarnation, number, batch.shards)
        fresh = {job.id: job.job_type_id for job in batch.fresh if self._is_new(job)}
        self._check_claims(batch.claims, fresh)
        self._check_counts(batch, fresh)
        self.insert(batch.fresh)
        self.write_marks(incarnation, number, batch.shards)
        self.write_positions(batch.shards)
        self._write_jobs(batch.jobs)
        for task in batch.tasks:
            self.tasks.setdefault(JobId(task.job_id), {})[task.task_no] = task
        for attempt in batch.attempts:
            self.attempts.setdefault((attempt.job_id, attempt.task_no, attempt.attempt), attempt)
        self.history.extend(batch.history)
        for done in batch.commands_done:
            if done.id in self.commands:
                self.commands[done.id].is_done, self.commands[done.id].refusal = True, done.refusal
        for job_type_id, change in batch.running_deltas.items():
            if job_type_id in self.job_types:
                self.job_types[job_type_id].running_count += change

    def check_leader(self, batch: JournalBatch) -> None:
        """Refuses claims of a queen that leads no more."""
        if batch.leader_epoch is not None and self.leases["leader"].epoch != batch.leader_epoch:
            raise FencedError((), is_leader=True)

    def check_epochs(self, marks: Sequence[ShardMark]) -> None:
        """Refuses what an owner of the past writes."""
        lost = [mark.shard for mark in marks if self.leases[f"shard-{mark.shard}"].epoch != mark.epoch]
        if lost:
            raise FencedError(lost)

    def check_number(self, incarnation: str, number: int, marks: Sequence[ShardMark]) -> None:
        """Refuses a batch that was voided, or was here before."""
        for mark in marks:
            lease = self.leases[f"shard-{mark.shard}"]
            if lease.mark_incarnation == incarnation and lease.mark_batch >= number:
                raise NotCommittedError("the database refused a batch: batch number used")

    def _is_new(self, job: NewJob) -> bool:
        key = None if job.idempotency_key is None else self.keys.get(job.idempotency_key)
        return job.id not in self.jobs and (key is None or key == Key(job.body_sha256, job.id))

    def _check_claims(self, claims: Sequence[JobId], fresh: Collection[JobId]) -> None:
        refused = [
            job_id
            for job_id in claims
            if job_id not in fresh and (job_id not in self.jobs or self.jobs[job_id].record.state != "PENDING")
        ]
        if refused:
            raise ClaimConflictError(refused)

    def _check_counts(self, batch: JournalBatch, fresh: Mapping[JobId, int]) -> None:
        full = {
            job_type.id
            for job_type_id, change in batch.running_deltas.items()
            if change > 0 and (job_type := self.job_types.get(job_type_id)) is not None
            if job_type.max_concurrency is not None and job_type.running_count + change > job_type.max_concurrency
        }
        if full:
            raise ClaimConflictError(
                [
                    job_id
                    for job_id in batch.claims
                    if (fresh.get(job_id) or self.jobs[job_id].record.job_type_id) in full
                ]
            )

    def write_marks(self, incarnation: str, number: int, marks: Sequence[ShardMark]) -> None:
        """Writes by what a lost answer is found."""
        for mark in marks:
            lease = self.leases[f"shard-{mark.shard}"]
            lease.mark_incarnation, lease.mark_batch = incarnation, number

    def write_positions(self, marks: Sequence[ShardMark]) -> None:
        """Writes how far logs were read."""
        for mark in marks:
            lease = self.leases[f"shard-{mark.shard}"]
            lease.results_position = mark.results_position or lease.results_position
            lease.launch_position = mark.launch_position or lease.launch_position

    def _write_jobs(self, rows: Iterable[JobRow]) -> None:
        for row in rows:
            job = self.jobs.get(JobId(row.id))
            if job is not None:
                job.change(row)

    def settle(self, shards: list[int], epochs: list[int], incarnation: str, number: int) -> list[Mapping[str, Any]]:
        """Mirrors the look-up of a lost answer: says whether the batch happened, and voids it where it did not."""
        seen: list[Mapping[str, Any]] = []
        for shard, epoch in sorted(zip(shards, epochs, strict=True)):
            lease = self.leases[f"shard-{shard}"]
            is_ours = lease.mark_incarnation == incarnation and lease.mark_batch == number
            seen.append({"shard": shard, "epoch": lease.epoch, "is_ours": is_ours})
            is_older = lease.mark_incarnation != incarnation or lease.mark_batch < number
            if lease.epoch == epoch and is_older:
                self.void(lease, incarnation, number)
        return seen

    def void(self, lease: Lease, incarnation: str, number: int) -> None:
        """Makes sure that a batch never happens any more."""
        lease.mark_incarnation, lease.mark_batch = incarnation, number + 1

    def load(self, shard: int) -> list[LoadedJob]:
        """Mirrors ``ShardStore.load``."""
        return self._loaded(
            job.record
            for job in self.jobs.values()
            if job.record.shard == shard and job.record.state in _LIVE and not _is_unclaimed(job.record)
        )

    def load_jobs(self, job_ids: Collection[JobId]) -> list[LoadedJob]:
        """Mirrors ``ShardStore.load_jobs``."""
        return self._loaded(self.jobs[job_id].record for job_id in job_ids if job_id in self.jobs)

    def ready_jobs(self, shards: Collection[int]) -> list[LoadedJob]:
        """Mirrors ``ShardStore.ready_jobs``."""
        return self._loaded(
            (job.record for job in self.jobs.values() if job.record.shard in shards and job.record.state == "READY"),
            only_restarted=True,
        )

    def _loaded(self, records: Iterable[JobRecord], *, only_restarted: bool = False) -> list[LoadedJob]:
        return [
            LoadedJob(record, [] if only_restarted and record.attempt == 1 else self.tasks_of(record.id))
            for record in sorted(records, key=lambda record: record.id)
        ]

    def tasks_of(self, job_id: JobId) -> list[TaskRow]:
        """Mirrors ``JobStore.tasks``."""
        rows = self.tasks.get(job_id, {})
        return [rows[number] for number in sorted(rows)]

    def issue(self, job_id: JobId, shard: int, kind: str, body: str) -> int:
        """Mirrors ``CommandStore.issue``."""
        number = len(self.commands) + 1
        self.commands[number] = Command(CommandRow(number, job_id, shard, kind, body))
        return number

    def open_commands(self, shards: Sequence[int]) -> list[CommandRow]:
        """Mirrors ``CommandStore.open``."""
        return [item.row for item in self.commands.values() if not item.is_done and item.row.shard in shards]

    def outcome(self, command_id: int) -> CommandOutcome:
        """Mirrors ``CommandStore.outcome``."""
        found = self.commands.get(command_id)
        return CommandOutcome(False, None) if found is None else CommandOutcome(found.is_done, found.refusal)

    def peek(self, limit: int, exclude: Collection[JobId]) -> list[LoadedJob]:
        """Mirrors ``ClaimStore.peek``."""
        now = self.now()
        pending = [job for job in self.jobs.values() if job.record.state == "PENDING"]
        excluded = Counter(job.record.job_type_id for job in pending if job.record.id in exclude)
        room = {
            item.id: limit
            if item.max_concurrency is None
            else min(limit, item.max_concurrency - item.running_count - excluded[item.id])
            for item in self.job_types.values()
        }
        heads = []
        for job in sorted(pending, key=_claim_order):
            type_id = job.record.job_type_id
            if job.due_at <= now and job.record.id not in exclude and room[type_id] > 0:
                room[type_id] -= 1
                heads.append(job.record)
        is_first = all(record.attempt == 1 for record in heads[:limit])
        return [
            LoadedJob(record, [] if is_first or record.attempt == 1 else self.tasks_of(record.id))
            for record in heads[:limit]
        ]

    def claim_ready(self, job_ids: Collection[JobId], leader_epoch: int) -> list[JobId]:
        """Mirrors ``claim_ready``."""
        self.check_leader(JournalBatch(leader_epoch=leader_epoch))
        wanted = [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]
        claimed = []
        for job in sorted((job for job in wanted if job.record.state == "PENDING"), key=_claim_order):
            job_type = self.job_types[job.record.job_type_id]
            if job_type.max_concurrency is None or job_type.running_count < job_type.max_concurrency:
                job_type.running_count += 1
                job.record, job.waiting_for = job.record._replace(state="READY"), None
                self.history.append(HistoryRow(job.record.id, self.now(), "READY", job.record.attempt, None, None))
                claimed.append(job.record.id)
        return claimed

    def outlook(self) -> Outlook:
        """Mirrors ``ClaimStore.outlook``."""
        now = self.now()
        pending = [job for job in self.jobs.values() if job.record.state == "PENDING"]
        later = [job.due_at for job in pending if job.scheduled_at is not None and job.due_at > now]
        types = [self.job_types[job.record.job_type_id] for job in pending]
        return Outlook(min(later, default=None), any(item.max_concurrency is not None for item in types))

    def blocked(self) -> list[BlockedType]:
        """Mirrors ``ClaimStore.blocked``."""
        found = []
        for item in self.job_types.values():
            of_type = [job for job in self.jobs.values() if job.record.job_type_id == item.id]
            pending = sorted((job for job in of_type if job.record.state == "PENDING"), key=_claim_order)
            if item.max_concurrency is None or item.running_count < item.max_concurrency or not pending:
                continue
            running = [job.record.id for job in of_type if job.record.state in _LIVE and not _is_unclaimed(job.record)]
            found.append(
                BlockedType(
                    job_type_id=item.id,
                    job_type=item.job_type,
                    running_count=item.running_count,
                    max_concurrency=item.max_concurrency,
                    running_job_id=running[0] if running else None,
                    pending_job_ids=tuple(job.record.id for job in pending[:EXPLAINED_COUNT]),
                )
            )
        return found


def _claim_order(job: Job) -> tuple[int, datetime, JobId]:
    return (-job.record.priority, job.due_at, job.record.id)


def _is_unclaimed(record: JobRecord) -> bool:
    return record.state == "PAUSED" and record.started_at is None
