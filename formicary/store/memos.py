"""Results of earlier runs, found by the digest of their inputs."""

from collections.abc import Sequence
from datetime import datetime
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
FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS w (memo, since, place)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT {_RUN} FROM tasks WHERE {_IS_RESULT} UNION ALL SELECT {_RUN} FROM task_attempts WHERE {_IS_RESULT}
    ) AS known
    WHERE w.since IS NULL OR known.finished_at > w.since
    ORDER BY known.finished_at DESC LIMIT 1) AS run"""


class Wanted(NamedTuple):
    """A digest, and since when a result must have been there (None: as long as it likes), by the clocks of queens."""

    memo: str
    since: datetime | None


class Result(NamedTuple):
    """What an earlier run left."""

    job_id: JobId
    task_no: int
    attempt: int
    exit_code: int | None
    outputs: dict[str, Json] | None
    artifacts: tuple[ArtifactRef, ...]


class Pin(NamedTuple):
    """A result whose artifacts are to be kept, and for which attempt."""

    result: Result
    target: Holder


#: Waits for an expiry that has locked some of the source's rows; that one waits for nobody (see ``references.py``).
_PIN = """
WITH source AS MATERIALIZED (
    SELECT u.place, u.target, u.target_no, u.target_attempt, a.name, a.sha256, a.size_bytes
    FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::uuid[], $5::integer[], $6::integer[]) WITH ORDINALITY
            AS u (job_id, task_no, attempt, target, target_no, target_attempt, place)
        JOIN artifacts a ON a.job_id = u.job_id AND a.task_no = u.task_no AND a.attempt = u.attempt
    FOR KEY SHARE OF a
), pins AS (
    INSERT INTO artifacts
        SELECT target, target_no, target_attempt, name, sha256, size_bytes, NULL FROM source ORDER BY 1, 2, 3, 4
    ON CONFLICT (job_id, task_no, attempt, name)
        DO UPDATE SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes
)
SELECT place, name FROM source"""


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

    async def pin(self, pins: Sequence[Pin]) -> list[bool]:
        """Keeps the artifacts of results for the attempts that shall take them; says False where some are gone.

        They are rows of the attempt's number below zero, until that attempt is over or another way was taken. The lock
        on the source's rows decides between this and their expiry. No target comes twice.
        """
        sources = [(pin.result.job_id, pin.result.task_no, pin.result.attempt) for pin in pins]
        targets = [(pin.target.job_id, pin.target.task_no, -pin.target.attempt) for pin in pins]
        names: list[set[str]] = [set() for _ in pins]
        for row in await self._database.fetch(_PIN, *columns(sources, 3), *columns(targets, 3)):
            names[row["place"] - 1].add(row["name"])
        return [kept >= {ref.name for ref in pin.result.artifacts} for kept, pin in zip(names, pins, strict=True)]


def _result(row: Record) -> Result:
    return Result(
        row["job_id"],
        row["task_no"],
        row["attempt"],
        row["exit_code"],
        None if row["outputs"] is None else _OUTPUTS.decode(row["outputs"]),
        () if row["artifacts"] is None else _ARTIFACTS.decode(row["artifacts"]),
    )
