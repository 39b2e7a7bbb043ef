"""Templates of live jobs, rendered at dispatch with what the job knows then."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from formicary.clock import time_text
from formicary.errors import FormicaryError
from formicary.events.orders import Fetch
from formicary.model.groups import DEFAULT_GROUP
from formicary.model.states import ErrorCode
from formicary.queen.supervisor.live import LiveJob
from formicary.queen.supervisor.program import encode_order
from formicary.states.cells import TaskCell
from formicary.states.inputs import JobBegan
from formicary.template import task as task_templates
from formicary.template.context import JobScope, TaskContext

Json = Any  # a JSON value

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.json.Decoder(dict).decode


def is_excepted(live: LiveJob, task_no: int, now: datetime) -> bool:
    """Says whether the task's ``except`` is true.

    Raises:
        TemplateError: it cannot be rendered.
    """
    return live.program.tasks[task_no].compiled.is_excepted(_context(live, task_no, now))


def beginning(live: LiveJob, now: datetime) -> JobBegan:
    """Returns the input that starts the job, with what its ``skip_if`` says."""
    if live.program.refusal is not None:
        return JobBegan(error_code=ErrorCode.VALIDATION, error_message=live.program.refusal, at=now)
    definition = live.program.definition
    if definition.skip_if is None:
        return JobBegan(at=now)
    try:
        return JobBegan(skip=task_templates.is_skipped(definition, _context(live, None, now)), at=now)
    except FormicaryError as error:
        return JobBegan(error_code=error.code, error_message=str(error), at=now)


def render_order(live: LiveJob, task_no: int, now: datetime) -> msgspec.Raw:
    """Returns the encoded order of a task that has templates or artifacts to fetch.

    Raises:
        TemplateError: it cannot be rendered.
        DataError: the rendered spec exceeds what a dispatch may carry.
        ArtifactsExpiredError: what it needs of an earlier task is not kept any more.
    """
    task = live.program.tasks[task_no]
    rendered = task.compiled.render(_context(live, task_no, now))
    fetches = _artifacts_of(live, task.fetch_numbers)
    for fetch in fetches:
        for ref in fetch.artifacts:
            if ref.is_expired:
                raise ArtifactsExpiredError(fetch.task_type, ref.name, ref.expires_at)
    return encode_order(live.record.job_type, task.definition, rendered, fetches)


def memo_of(live: LiveJob, task_no: int, now: datetime) -> str:
    """Returns what the result of a task with ``memoize`` is kept under: a digest of everything it may depend on.

    That is: group, job type, the task as rendered, names, contents and executability of the artifacts that it gets,
    and its key.

    Raises:
        TemplateError: the task or the key cannot be rendered.
        DataError: the rendered spec exceeds what a dispatch may carry.
    """
    task, context = live.program.tasks[task_no], _context(live, task_no, now)
    rendered = task.compiled.render(context)
    key = task.compiled.memo_key(context, rendered)
    order = encode_order(live.record.job_type, task.definition, rendered, ())
    given = [
        [(each.name, each.sha256, each.is_executable) for each in fetch.artifacts]
        for fetch in _artifacts_of(live, task.dependency_numbers)
    ]
    return hashlib.sha256(_encode((DEFAULT_GROUP, order, given, key))).hexdigest()


class ArtifactsExpiredError(FormicaryError):
    """A task needs artifacts that are not kept any more."""

    code = ErrorCode.ARTIFACT

    def __init__(self, task_type: str, name: str, expires_at: datetime | None) -> None:
        since = f" at {time_text(expires_at)}" if expires_at is not None else ""
        super().__init__(f'artifact {name} of task "{task_type}" expired{since}; restart the job from that task')


def _artifacts_of(live: LiveJob, numbers: tuple[int, ...]) -> tuple[Fetch, ...]:
    names = live.program.definition.tasks
    cells = [live.run.tasks[number] for number in numbers]
    return tuple(
        Fetch(names[cell.no].task_type, cell.no, cell.attempt, cell.artifacts) for cell in cells if cell.artifacts
    )


def _context(live: LiveJob, task_no: int | None, now: datetime) -> TaskContext:
    if live.scope is None:
        live.scope = JobScope(job_variables=live.program.definition.job_variables, params=_decode(live.record.params))
    return TaskContext(live.scope, lambda: _injected(live, task_no, now), _Cells(live))


def _injected(live: LiveJob, task_no: int | None, now: datetime) -> dict[str, Json]:
    record, job = live.record, live.run.job
    started = job.started_at or now
    injected = {
        "job_id": record.id,
        "job_type": record.job_type,
        "job_version": record.version,
        "job_attempt": job.attempt,
        "job_retry": job.retries_used,
        "job_elapsed_s": round((now - started).total_seconds(), 3),
        "user": record.user_name,
        "group": DEFAULT_GROUP,
    }
    if task_no is not None:
        cell = live.run.tasks[task_no]
        injected["task_type"] = live.program.definition.tasks[task_no].task_type
        injected["task_attempt"] = cell.attempt + 1
        injected["task_retry"] = cell.retries_used
    return injected


class _Cells(Mapping[str, TaskCell]):
    """The job's tasks by name."""

    def __init__(self, live: LiveJob) -> None:
        self._live = live

    def __getitem__(self, name: str) -> TaskCell:
        return self._live.run.tasks[self._live.program.plan.numbers[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live.program.plan.numbers)

    def __len__(self) -> int:
        return len(self._live.program.plan.numbers)
