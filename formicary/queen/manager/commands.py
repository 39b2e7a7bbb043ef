"""Commands from people: what the state of a job allows, and the row that carries a command to the job's owner."""

from typing import Any

import msgspec

from formicary.errors import ConflictError, InvalidInputError, Problem
from formicary.ids import JobId
from formicary.model.jobs import JobView
from formicary.model.states import TERMINAL_JOB_STATES, JobState

CANCEL = "cancel"
PAUSE = "pause"
RESUME = "resume"
RESTART = "restart"


class RestartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a restart: ``failed`` (what failed and all downstream) or ``all``; ``from_task`` names the first."""

    mode: str = "failed"
    from_task: str | None = None


def body_of(request: RestartRequest) -> dict[str, Any]:
    """Returns what the row of a restart says.

    Raises:
        InvalidInputError: the mode is none.
    """
    if request.mode not in ("failed", "all"):
        problem = Problem(path="mode", message=f"{request.mode!r} is no mode", hint='use "failed" or "all"')
        raise InvalidInputError(problem.message, [problem])
    return {"mode": request.mode, "from_task": request.from_task}


def body_of_cancel(reason: str | None) -> str:
    """Returns what the row of a cancel says, as JSON."""
    return msgspec.json.encode({} if reason is None else {"reason": reason}).decode()


def refuse_other_job(key: str, first_id: JobId, job_id: JobId) -> None:
    """Raises where ``key`` was used for another job.

    Raises:
        InvalidInputError: naming that job.
    """
    if first_id != job_id:
        message = f"{key!r} was used for a command to job {first_id}"
        problem = Problem(path="idempotency_key", message=message, hint="use a new key for another command")
        raise InvalidInputError(problem.text("").removeprefix(" "), [problem])


def is_unclaimed(job: JobView) -> bool:
    """Returns whether no queen has claimed this job yet, so that its row alone decides."""
    return job.state is JobState.PENDING or (job.state is JobState.PAUSED and job.started_at is None)


def refuse_if_forbidden(kind: str, job: JobView) -> None:
    """Raises where the state of ``job`` forbids the command.

    Raises:
        ConflictError: saying why, and what would be possible.
    """
    reason = _reason(kind, job)
    if reason is not None:
        raise ConflictError(f"cannot {kind} job {job.id}: {reason}")


def _reason(kind: str, job: JobView) -> str | None:
    has_ended = job.state in TERMINAL_JOB_STATES
    if kind == RESTART:
        return None if has_ended else f"it is {job.state} and has not ended; cancel it first"
    if has_ended:
        return f"it has already ended {job.state}" + ("; restart it instead" if kind == RESUME else "")
    if kind == PAUSE and job.cancelling:
        return "it is being cancelled"
    if kind == PAUSE and job.state is JobState.PAUSED:
        return "it is paused already"
    if kind == RESUME and job.state is not JobState.PAUSED:
        return f"it is {job.state}, not PAUSED"
    return None
