"""The errors of the store.

FormicaryError
└── StoreError
    ├── FencedError             another queen owns a shard (or the leadership) now: drop its memory
    ├── ClaimConflictError      a claim no longer holds: leave those jobs out and commit the rest anew
    ├── DataRefusedError        the batch holds a value that Postgres refuses: split it and commit the others
    ├── NotCommittedError       the connection was lost and the batch did not happen: drop and reload
    ├── SchemaError             the database is newer than this program, or not one of Formicary's
    └── EmbeddedPostgresError   the embedded server cannot be started

``formicary.errors.UnavailableError`` stands for a database that cannot be reached.
"""

from collections.abc import Sequence

from formicary.errors import DataError, FormicaryError
from formicary.ids import JobId


class StoreError(FormicaryError):
    """Root of what the store raises itself."""


class FencedError(StoreError):
    """Nothing was written: ``shards`` (or, with ``is_leader``, the leadership) belong to a newer epoch."""

    code = "ERR_FENCED"

    def __init__(self, shards: Sequence[int], *, is_leader: bool = False) -> None:
        what = "the leadership" if is_leader else f"shards {list(shards)}"
        super().__init__(f"{what} was taken over by another queen; nothing of this batch was written")
        self.shards = tuple(shards)
        self.is_leader = is_leader


class ClaimConflictError(StoreError):
    """Nothing was written: ``job_ids`` are not PENDING any more, or their type is at its ``max_concurrency``."""

    code = "ERR_CLAIM_CONFLICT"

    def __init__(self, job_ids: Sequence[JobId]) -> None:
        super().__init__(f"{len(job_ids)} claims no longer hold: {', '.join(job_ids[:5]) or 'max_concurrency reached'}")
        self.job_ids = tuple(job_ids)


class DataRefusedError(StoreError, DataError):
    """Nothing was written: the input holds a value that Postgres refuses (NUL, lone surrogate, number range)."""

    code = "ERR_VALIDATION"

    def __init__(self, message: str) -> None:
        super().__init__("database", message)


class NotCommittedError(StoreError):
    """The connection was lost during a commit, and the commit did not happen and never will."""

    code = "ERR_NOT_COMMITTED"


class SchemaError(StoreError):
    """The database's schema is not one that this program can use."""

    code = "ERR_SCHEMA"


class EmbeddedPostgresError(StoreError):
    """The embedded server does not start; the text says why and what to do."""

    code = "ERR_EMBEDDED_POSTGRES"
