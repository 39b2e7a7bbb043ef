"""Results of earlier runs, found by the digest of their inputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from formicary.ids import JobId
from formicary.model.jobs import ArtifactRef
from formicary.store.database import Database, Record, columns

Json = Any  # a JSON value

_OUTPUTS = msgspec.json.Decoder(dict[str, Json])
_ARTIFACTS = msgspec.json.Decoder(tuple[ArtifactRef, ...])

_RUN = "job_id, attempt, exit_code, outputs, artifacts, finished_at"
_IS_RESULT = "memo = w.memo AND state = 'COMPLETED' AND reused_from IS NULL"
_FIND = f"""
SELECT w.place, run.job_id::text, run.attempt, run.exit_code, run.outputs, run.artifacts
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
    attempt: int
    exit_code: int | None
    outputs: dict[str, Json] | None
    artifacts: tuple[ArtifactRef, ...]


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


def _result(row: Record) -> Result:
    return Result(
        row["job_id"],
        row["attempt"],
        row["exit_code"],
        None if row["outputs"] is None else _OUTPUTS.decode(row["outputs"]),
        () if row["artifacts"] is None else _ARTIFACTS.decode(row["artifacts"]),
    )
