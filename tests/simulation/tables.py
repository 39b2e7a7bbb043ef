"""The rows of ``MemoryDatabase``, and which values it refuses as Postgres does."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from formicary.ids import JobId
from formicary.store.errors import DataRefusedError
from formicary.store.rows import CommandRow, JobRecord, JobRow, JournalBatch

NEVER: Final = datetime.min.replace(tzinfo=UTC)
#: Columns of the journal's rows that may be NULL; those of 8 bytes.
_NULLABLE: Final = frozenset(
    [
        "stop_code",
        "stop_message",
        "counting_since",
        "started_at",
        "finished_at",
        "error_code",
        "error_message",
        "waiting_for",
        "incarnation",
        "not_before",
        "exit_code",
        "outputs",
        "artifacts",
        "cache",
        "memo",
        "reused_from",
        "dispatched_at",
        "note",
        "task_type",
        "refusal",
    ]
)
_WIDE: Final = frozenset({"epoch", "id"})


@dataclass(slots=True)
class Lease:
    """A row of ``leases``."""

    name: str
    shard: int | None
    owner: str | None = None
    owner_incarnation: str | None = None
    epoch: int = 0
    expires_at: datetime = NEVER
    results_position: bytes | None = None
    launch_position: bytes | None = None
    mark_incarnation: str | None = None
    mark_batch: int = 0


@dataclass(slots=True)
class JobType:
    """A row of ``job_types``."""

    id: int
    job_type: str
    definition_id: str
    version: int
    max_concurrency: int | None
    running_count: int = 0


@dataclass(slots=True)
class Job:
    """A row of ``jobs``."""

    record: JobRecord
    due_at: datetime
    scheduled_at: datetime | None
    labels: str
    waiting_for: str | None = None

    def change(self, row: JobRow) -> None:
        """Takes the columns that the journal writes."""
        columns = row._asdict()
        del columns["id"]
        self.waiting_for = columns.pop("waiting_for")
        self.record = self.record._replace(**columns)


@dataclass(slots=True)
class Command:
    """A row of ``job_commands``."""

    row: CommandRow
    is_done: bool = False
    refusal: str | None = None


@dataclass(slots=True)
class Key:
    """A row of ``idempotency_keys``."""

    body_sha256: str | None
    job_id: JobId


def refuse(batch: JournalBatch) -> None:
    """Refuses the values that Postgres refuses: NUL, lone surrogates, numbers out of range, NULL where none may be."""
    for rows in (batch.jobs, batch.tasks, batch.attempts, batch.history, batch.commands_done):
        for row in rows:
            for name, value in zip(row._fields, row, strict=True):
                _check_value(name, value)


def _check_value(name: str, value: object) -> None:
    if value is None:
        if name not in _NULLABLE:
            raise DataRefusedError(f"{name} must not be null")
    elif isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise DataRefusedError(f"{name} holds a lone surrogate")
        if "\0" in value:
            raise DataRefusedError(f"{name} holds a NUL")
    elif type(value) is int:
        limit = 2**63 if name in _WIDE else 2**31
        if not -limit <= value < limit:
            raise DataRefusedError(f"{name} is out of range")
