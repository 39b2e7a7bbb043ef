"""Results of earlier runs, found by the digest of their inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from formicary.ids import JobId
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef
from formicary.store.database import Database, Record, columns

Json = Any  # a JSON value

_OUTPUTS = msgspec.json.Decoder(dict[str, Json])
_ARTIFACTS = msgspec.json.Decoder(tuple[ArtifactRef, ...])

_RUN = "job_id, task_no, attempt, exit_code, outputs, artifacts, finished_at"
_IS_RESULT = "memo = w.memo AND state = 'COMPLETED' AND reused_from IS NULL"
_FIND = f"""
SELECT w.place, run.job_id::text, run.task_no, run.attempt, run.exit_code, run.outputs, run.artifacts
FROM unnest($1::text[], $2::float8[]) WITH ORDINALITY AS w (memo, max_age_s, place)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT {_RUN} FROM tasks WHERE {_IS_RESULT} UNION ALL SELECT {_RUN} FROM task_attempts WHERE {_IS_RESULT}
    ) AS known
    WHERE w.max_age_s IS NULL OR known.finished_at > now() - make_interval(secs => w.max_age_s)
    ORDER BY known.finished_at DESC LIMIT 1) AS run"""


class Wanted(NamedTuple):
    """A digest, and how old a result may be (None: as old as it likes)."""

    memo: str
    max_age_s: float | None


class Result(NamedTuple):
    """What an earlier run left."""

    job_id: JobId
    task_no: int
    attempt: int
    exit_code: int | None
    outputs: dict[str, Json] | None
    artifacts: tuple[ArtifactRef, ...]


_PIN = """
WITH source AS (
    SELECT name, sha256, size_bytes FROM artifacts WHERE job_id = $1::uuid AND task_no = $2 AND attempt = $3
    FOR KEY SHARE
)
INSERT INTO artifacts SELECT $4::uuid, $5, $6, name, sha256, size_bytes, NULL FROM source
ON CONFLICT (job_id, task_no, attempt, name) DO UPDATE SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes
RETURNING name"""


class MemoStore:
    """The results in ``tasks`` and ``task_attempts``: there is no copy of them that could say anything else.

    Raises:
        UnavailableError: from every method, where the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, wanted: Sequence[Wanted]) -> list[Result | None]:
        """Returns for each the newest result, in one statement."""
        results: list[Result | None] = [None] * len(wanted)
        for row in await self._database.fetch(_FIND, *columns(wanted, 2)):
            results[row["place"] - 1] = _result(row)
        return results

    async def pin(self, result: Result, target: Holder) -> bool:
        """Keeps the artifacts of a result for the attempt that shall take it; says False where some are gone.

        They are rows of the attempt's number below zero, until that attempt is over or another way was taken. The lock
        on the source's rows decides between this and their expiry.
        """
        rows = await self._database.fetch(
            _PIN, result.job_id, result.task_no, result.attempt, target.job_id, target.task_no, -target.attempt
        )
        return {row["name"] for row in rows} >= {ref.name for ref in result.artifacts}


def _result(row: Record) -> Result:
    return Result(
        row["job_id"],
        row["task_no"],
        row["attempt"],
        row["exit_code"],
        None if row["outputs"] is None else _OUTPUTS.decode(row["outputs"]),
        () if row["artifacts"] is None else _ARTIFACTS.decode(row["artifacts"]),
    )
