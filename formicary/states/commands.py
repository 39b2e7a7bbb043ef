"""What a step asks its owner to do, after the commit of the cells that it marks as changed."""

import msgspec


class Command(msgspec.Struct, frozen=True):
    """Root of the commands."""


class MakeRunnable(Command, frozen=True):
    """The task may be dispatched now: render it, choose an ant, answer with ``AttemptDispatched``,
    ``TaskExcepted`` or ``TaskRefused``. Withdrawn by ``Withdraw``."""

    task_no: int


class Withdraw(Command, frozen=True):
    """The task shall not be dispatched after all (paused, cancelled, failed fast)."""

    task_no: int


class StopAttempt(Command, frozen=True):
    """Ask the ant that holds this attempt to stop it."""

    task_no: int
    attempt: int


class WakeAfter(Command, frozen=True):
    """Feed ``DelayElapsed`` for this task after ``delay_s`` seconds."""

    task_no: int
    attempt: int
    job_attempt: int
    delay_s: float


class WatchTimeout(Command, frozen=True):
    """Feed ``JobTimedOut`` after ``delay_s`` seconds unless the job ended or paused; replaces an earlier watch."""

    job_attempt: int
    delay_s: float


class EndJob(Command, frozen=True):
    """The job reached a terminal state; forget it after the commit."""


class Requeue(Command, frozen=True):
    """The ended job is PENDING again: commit it, forget it, and let the scheduler claim it."""
