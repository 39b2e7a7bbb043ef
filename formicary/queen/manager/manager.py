"""The manager: everything that people and services ask of a queen, and the only part that its API sees.

It shares nothing with scheduler and supervisors but the database. Every call can raise ``UnavailableError`` while the
database is away; it was then not carried out, or (a submission whose answer was lost) can be repeated with its key.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from formicary.errors import (
    ConflictError,
    ExpiredError,
    FormicaryError,
    InvalidInputError,
    NotFoundError,
    Problem,
)
from formicary.ids import JobId
from formicary.metrics import JOBS_SUBMITTED
from formicary.model.definition import DefinitionRecord
from formicary.model.jobs import AntView, ArtifactRef, JobRequest, JobView, LogLine
from formicary.model.parse import parse_definition
from formicary.model.states import TERMINAL_JOB_STATES, JobState, TaskState
from formicary.queen.manager import commands, views
from formicary.queen.manager.book import DefinitionBook
from formicary.queen.manager.checks import job_id as checked_id
from formicary.queen.manager.checks import printable
from formicary.queen.manager.contracts import Stores, Surroundings
from formicary.queen.manager.downloads import Download, chunks_of, select, url_of
from formicary.queen.manager.intake import Intake
from formicary.queen.manager.output import (
    EVERYTHING,
    LAST_LINES_S,
    Extent,
    Follower,
    Selection,
    stored_lines,
    wait_for_writers,
)
from formicary.queen.manager.submissions import Submissions, Submitted
from formicary.store.jobs import StoredJob

MAX_PAGE = 500
#: How long a restart waits for the job's owner to carry it out, in seconds; it is carried out later all the same.
RESTART_WAIT_S = 5.0


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a definition; ``is_new`` is False where the newest one has the same source."""

    record: DefinitionRecord
    is_new: bool


class Manager:
    """Saves definitions, takes jobs, answers questions about them and passes commands on."""

    def __init__(self, stores: Stores, surroundings: Surroundings, shard_count: int) -> None:
        self._stores = stores
        self._around = surroundings
        self._book = DefinitionBook(stores.definitions)
        self._intake = Intake(stores.jobs)
        self._submissions = Submissions(self._book, self._intake, surroundings.starter, surroundings.clock, shard_count)

    async def close(self) -> None:
        """Waits for the inserts under way. Safe twice."""
        await self._intake.close()

    async def check(self) -> None:
        """Raises ``UnavailableError`` unless the database answers."""
        await self._stores.database.ping()

    # definitions

    async def save_definition(self, text: str, file: str = "definition") -> Saved:
        """Parses, checks and stores a definition; an unchanged one makes no new version.

        Raises:
            DefinitionError: listing every mistake.
        """
        definition = await asyncio.to_thread(parse_definition, text, file)
        record, is_new = await self._stores.definitions.save(definition)
        self._book.remember_newest(self._book.learn(record, definition))
        return Saved(record=record, is_new=is_new)

    async def definition(self, job_type: str) -> DefinitionRecord:
        """Returns the newest version of a job type, as the database has it.

        Raises:
            NotFoundError: there is none.
        """
        record = await self._stores.definitions.newest(job_type)
        if record is None:
            raise NotFoundError(f"no job type {printable(job_type)!r}")
        return record

    async def definition_versions(self, job_type: str) -> Sequence[DefinitionRecord]:
        """Returns every version of a job type, newest first.

        Raises:
            NotFoundError: there is none.
        """
        records = await self._stores.definitions.versions(job_type)
        if not records:
            raise NotFoundError(f"no job type {printable(job_type)!r}")
        return records

    async def definitions(self, limit: int, cursor: str | None) -> tuple[Sequence[DefinitionRecord], str | None]:
        """Returns a page of the newest versions, and the cursor of the next."""
        return await self._stores.definitions.list(limit, cursor)

    # jobs

    async def submit(self, request: JobRequest, job_id: JobId | None = None) -> Submitted:
        """Accepts a job: when this returns, it is committed and never lost.

        Args:
            request: what to run.
            job_id: the id that a new job gets; None: a fresh one.

        Raises:
            InvalidInputError: a param is missing or wrong, or the idempotency key was used with another body.
            NotFoundError: unknown job type or version.
        """
        (result,) = await self.submit_batch([request], () if job_id is None else (job_id,))
        if isinstance(result, FormicaryError):
            raise result
        return result

    async def submit_batch(
        self, requests: Sequence[JobRequest], ids: Sequence[JobId] = ()
    ) -> list[Submitted | FormicaryError]:
        """Accepts what is right, all in one commit; returns a job or an error for each request, in order."""
        results = await self._submissions.submit(requests, ids)
        created = [result for result in results if isinstance(result, Submitted)]
        if created:
            JOBS_SUBMITTED.inc(len(created))
        waiting = [result for result in created if not result.is_started]
        if waiting:
            startable = [result.startable for result in waiting if result.startable is not None]
            self._around.wake.submitted(startable if len(startable) == len(waiting) else ())
        return [await self._first(result) if isinstance(result, str) else result for result in results]

    async def _first(self, job_id: JobId) -> Submitted | ExpiredError:
        try:
            return Submitted(await self.job(job_id), is_new=False)
        except NotFoundError:
            return ExpiredError(f"the job of this idempotency key, {job_id}, ended and was deleted; use a new key")

    async def job(self, job_id: str) -> JobView:
        """Returns a job with all its tasks.

        Raises:
            NotFoundError: there is none of this id.
        """
        return await self._with_tasks(_found(job_id, await self._stores.jobs.get_with_tasks(checked_id(job_id))))

    async def _with_tasks(self, stored: StoredJob) -> JobView:
        pending = await self._book.tasks_of(stored.view.id, stored.definition_id, stored.rendered_source)
        if stored.view.state is JobState.PENDING and stored.view.attempt == 1:
            return msgspec.structs.replace(stored.view, tasks=pending)
        return views.with_tasks(stored.view, pending, stored.tasks or (), self._around.waits.reasons(stored.view.id))

    async def wait_for_end(self, job_id: str, timeout_s: float) -> JobView:
        """Returns the job when it has ended, or as it is when ``timeout_s`` passed.

        Raises:
            NotFoundError: there is none of this id.
        """
        known_id = checked_id(job_id)

        async def look() -> StoredJob | None:
            if self._around.waits.is_live(known_id):
                return None
            stored = _found(known_id, await self._stores.jobs.get_with_tasks(known_id, only_if_ended=True))
            return stored if stored.view.state in TERMINAL_JOB_STATES else None

        ended = await self._around.watch.wait(known_id, timeout_s, look)
        return await (self.job(known_id) if ended is None else self._with_tasks(ended))

    async def has_ended(self, job_id: str) -> bool:
        """Returns whether the job is in a terminal state."""
        return (await self._stored(job_id)).view.state in TERMINAL_JOB_STATES

    async def jobs(
        self, state: JobState | None, job_type: str | None, limit: int, cursor: str | None
    ) -> tuple[Sequence[JobView], str | None]:
        """Returns a page of jobs without their tasks, newest first, and the cursor of the next."""
        return await self._stores.jobs.list(state, job_type, limit, cursor)

    async def _stored(self, job_id: str) -> StoredJob:
        return _found(job_id, await self._stores.jobs.get(checked_id(job_id)))

    # commands

    async def cancel(self, job_id: str, reason: str | None = None) -> JobView:
        """Asks for a cancel; a second one also stops ``always_run`` tasks. ``reason`` is for people.

        Raises:
            ConflictError: the job has ended.
        """
        return await self._command(commands.CANCEL, job_id, reason)

    async def cancel_once(self, job_id: str, reason: str | None, key: str) -> bool:
        """Does what ``cancel`` does, once per ``key``; returns False where the key had cancelled this job before.

        Raises:
            ConflictError: the job has ended.
            InvalidInputError: the key was used for another job.
        """
        stored = await self._stored(job_id)
        first_id = await self._stores.commands.first_of(key)
        if first_id is not None:
            commands.refuse_other_job(key, first_id, stored.view.id)
            return False
        if commands.is_unclaimed(stored.view):
            change = await self._stores.jobs.change_pending(
                stored.view.id, commands.CANCEL, reason or "cancel requested"
            )
            if change.is_applied:
                self._announce(commands.CANCEL, stored.view.id)
                return True
            stored = await self._stored(job_id)
        commands.refuse_if_forbidden(commands.CANCEL, stored.view)
        body = commands.body_of_cancel(reason)
        issued = await self._stores.commands.issue_once(stored.view.id, stored.shard, commands.CANCEL, body, None, key)
        commands.refuse_other_job(key, issued.job_id, stored.view.id)
        self._around.wake.command(stored.shard)
        return issued.is_new

    async def pause(self, job_id: str) -> JobView:
        """Asks for a pause: nothing new starts.

        Raises:
            ConflictError: the job is paused, is being cancelled or has ended.
        """
        return await self._command(commands.PAUSE, job_id)

    async def resume(self, job_id: str) -> JobView:
        """Asks for the end of a pause.

        Raises:
            ConflictError: the job is not paused.
        """
        return await self._command(commands.RESUME, job_id)

    async def restart(self, job_id: str, request: commands.RestartRequest) -> JobView:
        """Asks for the next attempt of an ended job, and returns the job once its owner has opened that attempt.

        So nobody who waits for the job next takes its former end for the new one. Where the owner does not come round
        to it within ``RESTART_WAIT_S``, the job is returned as it is; the command stands.

        Raises:
            ConflictError: it has not ended, or nothing of it failed.
            InvalidInputError: the mode or the task is unknown.
        """
        body = commands.body_of(request)
        job = await self.job(job_id)
        commands.refuse_if_forbidden(commands.RESTART, job)
        tasks = job.tasks or ()
        if request.from_task is not None and all(task.task_type != request.from_task for task in tasks):
            problem = Problem(path="from_task", message=f"the job has no task {printable(request.from_task)!r}")
            raise InvalidInputError(problem.message, [problem])
        is_clean = all(task.state not in (TaskState.FAILED, TaskState.CANCELLED) for task in tasks)
        if job.state is JobState.COMPLETED and is_clean and request.mode == "failed" and request.from_task is None:
            raise ConflictError(
                f'cannot restart job {job.id}: nothing of it failed; use mode "all" (--all) or from_task'
            )
        stored = await self._stored(job_id)
        command_id = await self._issue(commands.RESTART, stored, msgspec.json.encode(body).decode())
        await self._carried_out(commands.RESTART, stored.view.id, command_id)
        return await self.job(job_id)

    async def _command(self, kind: str, job_id: str, reason: str | None = None) -> JobView:
        stored = await self._stored(job_id)
        commands.refuse_if_forbidden(kind, stored.view)
        if commands.is_unclaimed(stored.view):
            change = await self._stores.jobs.change_pending(stored.view.id, kind, reason or f"{kind} requested")
            if change.is_applied:
                self._announce(kind, stored.view.id)
                return await self.job(job_id)
            stored = await self._stored(job_id)
            commands.refuse_if_forbidden(kind, stored.view)
        body = {} if reason is None else {"reason": reason}
        await self._issue(kind, stored, msgspec.json.encode(body).decode())
        return await self.job(job_id)

    async def _issue(self, kind: str, stored: StoredJob, body: str) -> int:
        command_id = await self._stores.commands.issue(stored.view.id, stored.shard, kind, body, None)
        self._around.wake.command(stored.shard)
        return command_id

    async def _carried_out(self, kind: str, job_id: JobId, command_id: int) -> None:
        async def look() -> bool | None:
            outcome = await self._stores.commands.outcome(command_id)
            if outcome.refusal is not None:
                raise ConflictError(f"cannot {kind} job {job_id}: {outcome.refusal}")
            return outcome.is_done or None

        await self._around.watch.wait(job_id, RESTART_WAIT_S, look)

    def _announce(self, kind: str, job_id: JobId) -> None:
        if kind == commands.CANCEL:
            self._around.watch.ended(job_id)
        else:
            self._around.wake.submitted()

    # output, artifacts, ants

    async def log_lines(
        self, job_id: str, task_type: str | None, attempt: int | None, extent: Extent = EVERYTHING
    ) -> AsyncIterator[list[LogLine]]:
        """Returns pages of the stored output, in order of arrival; of a job that has just ended, all of it.

        Raises:
            NotFoundError: no such job, or no such task in it.
        """
        stored = await self._stored(job_id)
        selection = await self._selection(stored, task_type, attempt)
        finished_at, clock = stored.view.finished_at, self._around.clock
        if finished_at is not None and (clock.now() - finished_at).total_seconds() < LAST_LINES_S:
            await wait_for_writers(self._around.log_backlog, clock)
        return stored_lines(self._stores.logs, selection, extent)

    async def follow_log(
        self, job_id: str, task_type: str | None, attempt: int | None, extent: Extent = EVERYTHING
    ) -> AsyncIterator[list[LogLine]]:
        """Returns pages of output, now and as it arrives, until the job ended and all of it was returned.

        Pages can be empty.

        Raises:
            NotFoundError: no such job, or no such task in it.
        """
        selection = await self._selection(await self._stored(job_id), task_type, attempt)
        around = self._around
        follower = Follower(self._stores.logs, around.log_signals, around.log_backlog, around.clock)
        return follower.follow(selection, extent, lambda: self.has_ended(selection.job_id))

    async def _selection(self, stored: StoredJob, task_type: str | None, attempt: int | None) -> Selection:
        tasks = await self._book.tasks_of(stored.view.id, stored.definition_id, stored.rendered_source)
        names = tuple(task.task_type for task in tasks)
        if task_type is None:
            return Selection(stored.view.id, None, attempt, names)
        if task_type not in names:
            raise NotFoundError(f"job {stored.view.id} has no task {printable(task_type)!r}")
        return Selection(stored.view.id, names.index(task_type), attempt, names)

    async def artifact(self, job_id: str, task_type: str, name: str, attempt: int | None = None) -> Download:
        """Returns an artifact of an attempt of the task, None meaning the newest.

        Raises:
            NotFoundError: no such job, task, attempt or artifact, or its bytes are gone.
            ExpiredError: it is not kept any more.
        """
        ref = await self._artifact(job_id, task_type, name, attempt)
        return Download(ref=ref, chunks=chunks_of(self._stores.artifacts, ref))

    async def artifact_url(self, job_id: str, task_type: str, name: str, attempt: int | None = None) -> str | None:
        """Returns a URL from which anyone can get an artifact for a while; None where the store has no such thing.

        Raises:
            NotFoundError: no such job, task, attempt or artifact, or its bytes are gone.
            ExpiredError: it is not kept any more.
        """
        return await url_of(self._stores.artifacts, await self._artifact(job_id, task_type, name, attempt))

    async def _artifact(self, job_id: str, task_type: str, name: str, attempt: int | None) -> ArtifactRef:
        job = await self.job(job_id)
        refs: Sequence[ArtifactRef] = ()
        for number, task in enumerate(job.tasks or ()):
            if task.task_type == task_type and attempt in (None, task.attempt):
                refs = task.artifacts
            elif task.task_type == task_type:
                rows = await self._stores.jobs.attempts(job.id)
                refs = next((views.artifacts(row) for row in rows if row[1:3] == (number, attempt)), ())
        has_ended = job.state in TERMINAL_JOB_STATES
        ref = select(refs, name, self._around.clock.now(), has_ended=has_ended)
        if ref is None:
            which = "" if attempt is None else f" in attempt {attempt}"
            owner = f"of a task {printable(task_type)!r}{which}"
            raise NotFoundError(f"job {job.id} has no artifact {printable(name)!r} {owner}")
        return ref

    def ants(self) -> list[AntView]:
        """Returns the live ants."""
        return self._around.ants.views()


def _found(job_id: str, stored: StoredJob | None) -> StoredJob:
    if stored is None:
        raise NotFoundError(f"no job {job_id}")
    return stored
