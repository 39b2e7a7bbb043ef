"""Submitting jobs: check, make the row, insert; answer with the job as it stands."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from formicary.clock import Clock
from formicary.errors import FormicaryError, InvalidInputError, Problem
from formicary.ids import JobId, new_job_id, shard_of
from formicary.model.jobs import JobRequest, JobView, TaskView
from formicary.model.states import JobState
from formicary.queen.manager.book import DefinitionBook, Known
from formicary.queen.manager.checks import as_utc, check_request, encode_params, missing_params, refuse
from formicary.queen.manager.contracts import Starter
from formicary.queen.manager.intake import Intake
from formicary.queen.manager.rendering import Renderer
from formicary.store.jobs import Inserted, InsertOutcome
from formicary.store.rows import JobRecord, NewJob

#: Requests of a batch that are checked before the loop turns to others.
_LOOP_SHARE = 200
#: How often a submission is made again because a newer version of its definition appeared meanwhile.
_VERSIONS_CHASED = 5


class Submitted(NamedTuple):
    """An accepted job; ``is_new`` is False where its idempotency key had been seen with the same body.

    ``startable`` is its row where nothing keeps it from starting at once; ``is_started``: it did, in the same commit.
    """

    job: JobView
    is_new: bool
    startable: JobRecord | None = None
    is_started: bool = False


class Draft(NamedTuple):
    """A checked request: its row, and what the answer shows."""

    request: JobRequest
    row: NewJob
    known: Known
    tasks: tuple[TaskView, ...]

    def view(self) -> JobView:
        """Returns the job as it is right after its insert."""
        return JobView(
            id=self.row.id,
            job_type=self.known.record.job_type,
            version=self.known.record.version,
            state=JobState.PENDING,
            params=self.request.params,
            priority=self.row.priority,
            labels=msgspec.json.decode(self.row.labels),
            created_at=self.row.created_at,
            scheduled_at=self.row.scheduled_at,
            tasks=self.tasks,
        )

    def startable(self) -> JobRecord | None:
        """Returns the inserted row as a queen loads it, unless the job is due later or its type has a limit."""
        row = self.row
        if row.scheduled_at is not None or self.known.definition.max_concurrency is not None:
            return None
        return JobRecord(
            id=row.id,
            job_type_id=row.job_type_id,
            job_type=self.known.record.job_type,
            definition_id=row.definition_id,
            version=self.known.record.version,
            shard=row.shard,
            state=JobState.PENDING,
            priority=row.priority,
            created_at=row.created_at,
            user_name=row.user_name,
            params=row.params,
            rendered_source=row.rendered_source,
            attempt=1,
            retries_used=0,
            cancelling=False,
            stop_code=None,
            stop_message=None,
            elapsed_s=0.0,
            counting_since=None,
            started_at=None,
            finished_at=None,
            error_code=None,
            error_message=None,
            labels=row.labels,
            scheduled_at=row.scheduled_at,
        )


class Submissions:
    """Turns requests into rows, and rows into jobs."""

    def __init__(self, book: DefinitionBook, intake: Intake, starter: Starter, clock: Clock, shard_count: int) -> None:
        self._book = book
        self._starter = starter
        self._intake = intake
        self._clock = clock
        self._shard_count = shard_count
        self._renderer = Renderer()

    async def submit(
        self, requests: Sequence[JobRequest], ids: Sequence[JobId] = ()
    ) -> list[Submitted | JobId | FormicaryError]:
        """Inserts what is right in one commit; returns for each request its job, the id of the job that its key
        already made, or what is wrong with it. ``ids`` are for the new jobs; empty: fresh ones.

        Raises:
            UnavailableError: the database is away; nothing is known to be inserted.
        """
        results: dict[int, Submitted | JobId | FormicaryError] = {}
        remaining = list(range(len(requests)))
        chosen = ids or [new_job_id() for _ in requests]
        for _ in range(_VERSIONS_CHASED):
            remaining = await self._submit_once(requests, chosen, remaining, results)
            if not remaining:
                break
        for number in remaining:
            results[number] = InvalidInputError("its definition changes faster than jobs can be made; submit it again")
        return [results[number] for number in range(len(requests))]

    async def _submit_once(
        self,
        requests: Sequence[JobRequest],
        ids: Sequence[JobId],
        numbers: list[int],
        results: dict[int, Submitted | JobId | FormicaryError],
    ) -> list[int]:
        drafts: dict[int, Draft] = {}
        now = self._clock.now()
        for number in numbers:
            if len(drafts) % _LOOP_SHARE == _LOOP_SHARE - 1:
                await asyncio.sleep(0)
            try:
                drafts[number] = await self._draft(requests[number], ids[number], now)
            except FormicaryError as error:
                if isinstance(error, InvalidInputError) or error.code == "ERR_NOT_FOUND":
                    results[number] = error
                else:
                    raise
        if not drafts:
            return []
        if len(drafts) == 1 and (started := await self._started(*drafts.values())) is not None:
            results.update(dict.fromkeys(drafts, started))
            return []
        inserted = await self._intake.insert([draft.row for draft in drafts.values()])
        stale: list[int] = []
        for (number, draft), outcome in zip(drafts.items(), inserted, strict=True):
            result = self._result(draft, outcome)
            if result is None:
                stale.append(number)
            else:
                results[number] = result
        return stale

    async def _started(self, draft: Draft) -> Submitted | None:
        record = draft.startable()
        if record is None or not await self._starter.begin(draft.row, record):
            return None
        return Submitted(draft.view(), is_new=True, is_started=True)

    async def _draft(self, request: JobRequest, job_id: JobId, now: datetime) -> Draft:
        check_request(request)
        params = encode_params(request.params)
        known = await self._find(request)
        definition = known.definition
        if missing := missing_params(definition.required_params, request.params):
            refuse(missing)
        tasks, rendered_source = known.pending, None
        if definition.dynamic_template_tasks:
            tasks, rendered_source = await self._renderer.tasks(definition, request.params)
        scheduled_at = None if request.scheduled_at is None else as_utc(request.scheduled_at)
        labels = {**definition.labels, **request.labels} if request.labels else definition.labels
        key = request.idempotency_key
        row = NewJob(
            id=job_id,
            job_type_id=known.record.job_type_id,
            definition_id=known.record.id,
            shard=shard_of(job_id, self._shard_count),
            priority=definition.priority if request.priority is None else request.priority,
            due_at=scheduled_at or now,
            scheduled_at=scheduled_at,
            created_at=now,
            user_name=None,
            params=params,
            labels=msgspec.json.encode(labels).decode() if labels else "{}",
            rendered_source=rendered_source,
            idempotency_key=key,
            body_sha256=None if key is None else _digest(request),
            expects_newest=request.version is None,
        )
        return Draft(request, row, known, tasks)

    async def _find(self, request: JobRequest) -> Known:
        if request.version is None:
            return await self._book.newest(request.job_type)
        return await self._book.version(request.job_type, request.version)

    def _result(self, draft: Draft, inserted: Inserted) -> Submitted | JobId | FormicaryError | None:
        match inserted.outcome:
            case InsertOutcome.CREATED:
                return Submitted(draft.view(), is_new=True, startable=draft.startable())
            case InsertOutcome.EXISTING:
                return inserted.job_id
            case InsertOutcome.KEY_CONFLICT:
                return _key_conflict(draft.request.idempotency_key or "", inserted.job_id)
            case InsertOutcome.STALE:
                self._book.forget_newest(draft.request.job_type)
                return None


def _digest(request: JobRequest) -> str:
    body = msgspec.json.encode(msgspec.structs.replace(request, idempotency_key=None), order="deterministic")
    return hashlib.sha256(body).hexdigest()


def _key_conflict(key: str, job_id: JobId) -> InvalidInputError:
    problem = Problem(
        path="idempotency_key",
        message=f"{key!r} was used with another body, for job {job_id}",
        hint="use a new key for another job",
    )
    return InvalidInputError(problem.text("").removeprefix(" "), [problem])
