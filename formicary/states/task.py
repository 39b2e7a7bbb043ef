"""The life of a task: what each input means to a task in each state.

``RULES`` maps (state, input) to a rule: a pure function that reads the cell and the input and returns a ``Ruling``;
``JobRun`` carries it out. ``IGNORED`` holds duplicates and late arrivals, which an at-least-once bus makes normal.
``ILLEGAL`` holds what only a defect can bring about. Every pair is in exactly one of the three.
Inputs about another attempt than the current one never get here: they are late.
"""

from collections.abc import Callable, Set
from enum import IntEnum
from typing import NamedTuple

from executors.base import Reason
from formicary.model.definition import Special, TaskDefinition
from formicary.model.states import ErrorCode, TaskState
from formicary.states import texts
from formicary.states.cells import TaskCell
from formicary.states.graph import Plan
from formicary.states.inputs import (
    AttemptDeclined,
    AttemptDispatched,
    AttemptFinished,
    AttemptLost,
    AttemptStarted,
    DelayElapsed,
    Input,
    TaskExcepted,
    TaskRefused,
    TaskReused,
)

#: Ants that may be lost under one task in one job attempt before it fails: a poison task must not eat the colony.
ANTS_LOST_LIMIT = 3


class Action(IntEnum):
    """What becomes of the task."""

    NOTHING = 0
    DISPATCH = 1
    START = 2
    COMPLETE = 3
    FAIL = 4  # after its retries
    FAIL_NOW = 5  # without retry
    POLL = 6
    PAUSE_JOB = 7
    RESTART_JOB = 8
    CANCEL = 9
    EXCEPT = 10
    OFFER = 11  # its delay is over
    RETURN = 12  # the attempt did not run: again, at no cost
    LOSE = 13  # the ant is gone: again, at no cost
    RESTART = 14  # like FAIL, asked for by an exit code
    REUSE = 15  # an earlier run's result is its own


class Ruling(NamedTuple):
    """A rule's answer; code and sentence belong to a failure or to an attempt given up."""

    action: Action
    error_code: str | None = None
    error_message: str | None = None


#: (cell, input, plan, whether the attempt was asked to stop) -> ruling
Rule = Callable[[TaskCell, Input, Plan, bool], Ruling]

NOTHING = Ruling(Action.NOTHING)
_DISPATCH = Ruling(Action.DISPATCH)
_START = Ruling(Action.START)
_COMPLETE = Ruling(Action.COMPLETE)
_EXCEPT = Ruling(Action.EXCEPT)
_OFFER = Ruling(Action.OFFER)
_REUSE = Ruling(Action.REUSE)
_POLL = Ruling(Action.POLL)
_PAUSE_JOB = Ruling(Action.PAUSE_JOB)
_CANCEL = Ruling(Action.CANCEL)


def dispatch(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """An ant was chosen."""
    return _DISPATCH


def start(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """The ant runs it."""
    return _START


def skip(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """Its ``except`` is true."""
    return _EXCEPT


def reuse(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """An earlier run had equal inputs."""
    return _REUSE


def offer(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """Its delay is over, unless it was dispatched again since."""
    assert isinstance(event, DelayElapsed)
    return _OFFER if event.attempt == cell.attempt else NOTHING


def refuse(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """It can never be dispatched."""
    assert isinstance(event, TaskRefused)
    return Ruling(Action.FAIL_NOW, event.error_code, event.error_message)


def lose(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """Its ant is gone; the third one that counts fails it."""
    assert isinstance(event, AttemptLost)
    if is_stopping:
        return _CANCEL
    lost = cell.ants_lost + event.counts
    if event.counts and lost >= ANTS_LOST_LIMIT:
        return Ruling(Action.FAIL_NOW, ErrorCode.ANT_LOST, texts.ants_lost(lost))
    return Ruling(Action.LOSE, None, texts.ANT_LOST)


def decline(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """The ant that it was sent to does not run it; the word of any other ant does not count."""
    assert isinstance(event, AttemptDeclined)
    if event.incarnation != cell.incarnation:
        return NOTHING
    return _CANCEL if is_stopping else Ruling(Action.RETURN, None, texts.declined(event.reason))


def finish(cell: TaskCell, event: Input, plan: Plan, is_stopping: bool) -> Ruling:
    """It ended: ``on_exit_code`` first, then success or failure."""
    assert isinstance(event, AttemptFinished)
    exits = plan.exits[cell.no]
    if exits is None:
        return _COMPLETE if event.is_success else _failure(cell, event, plan, is_stopping)
    code = event.exit_code
    special = None
    if event.reason == Reason.EXITED and event.error_code is None and code is not None:
        if code in exits.tasks:
            return _COMPLETE
        special = exits.specials.get(code)
    elif event.reason == Reason.CANCELLED:
        return _failure(cell, event, plan, is_stopping)
    if special is None:
        special = exits.on_success if event.is_success else exits.on_failure
    if special is None:
        return _COMPLETE if event.is_success else _failure(cell, event, plan, is_stopping)
    return _special(special, _mapped_failure(cell, event, plan, special))


def _mapped_failure(cell: TaskCell, event: AttemptFinished, plan: Plan, target: str) -> Ruling:
    """Returns what the attempt is as a failure, with a sentence that names the target."""
    if event.reason != Reason.EXITED or event.error_code is not None:
        return _failure(cell, event, plan, is_stopping=False)
    sentence = texts.mapped_code(plan.tasks[cell.no], event.exit_code, target)
    return Ruling(Action.FAIL, ErrorCode.EXIT_CODE, event.error_message or sentence)


def _special(target: str, plain: Ruling) -> Ruling:
    """Returns what a special target makes of an attempt; ``plain`` is what it would be as a failure."""
    match target:
        case Special.COMPLETED:
            return _COMPLETE
        case Special.EXECUTING:
            return _POLL
        case Special.PAUSE_JOB:
            return _PAUSE_JOB
        case Special.FATAL | ErrorCode.FATAL:
            return Ruling(Action.FAIL_NOW, ErrorCode.FATAL, plain.error_message)
        case Special.RESTART_JOB:
            return plain._replace(action=Action.RESTART_JOB)
        case Special.RESTART_TASK:
            return plain._replace(action=Action.RESTART)
        case Special.FAILED:
            return plain
        case _:
            return plain._replace(error_code=target)


def _failure(cell: TaskCell, event: AttemptFinished, plan: Plan, is_stopping: bool) -> Ruling:
    if event.reason == Reason.CANCELLED and is_stopping:
        return _CANCEL
    code, sentence = _REASONS.get(event.reason, _executor_failure)(event, plan.tasks[cell.no])
    return Ruling(Action.FAIL, event.error_code or code, event.error_message or sentence)


def _executor_failure(event: AttemptFinished, task: TaskDefinition) -> tuple[str, str]:
    return ErrorCode.EXECUTOR, texts.EXECUTOR


_REASONS: dict[str, Callable[[AttemptFinished, TaskDefinition], tuple[str, str]]] = {
    Reason.EXITED.value: lambda event, task: (ErrorCode.EXIT_CODE, texts.exit_code(task, event.exit_code)),
    Reason.SIGNALLED.value: lambda event, task: (ErrorCode.SIGNAL, texts.signalled(event.exit_code)),
    Reason.OUT_OF_MEMORY.value: lambda event, task: (ErrorCode.OUT_OF_MEMORY, texts.OUT_OF_MEMORY),
    Reason.CPU_TIME.value: lambda event, task: (ErrorCode.CPU_TIME, texts.CPU_TIME),
    Reason.TIMED_OUT.value: lambda event, task: (ErrorCode.TASK_TIMEOUT, texts.task_timeout(task)),
    Reason.CANCELLED.value: lambda event, task: (ErrorCode.EXECUTOR, texts.NOT_ORDERED),
}

_S = TaskState

RULES: dict[tuple[TaskState, type[Input]], Rule] = {
    (_S.PENDING, AttemptDispatched): dispatch,
    (_S.PENDING, TaskExcepted): skip,
    (_S.PENDING, TaskReused): reuse,
    (_S.PENDING, TaskRefused): refuse,
    (_S.PENDING, DelayElapsed): offer,
    (_S.READY, AttemptStarted): start,
    (_S.READY, AttemptFinished): finish,
    (_S.READY, AttemptDeclined): decline,
    (_S.READY, AttemptLost): lose,
    (_S.EXECUTING, AttemptFinished): finish,
    (_S.EXECUTING, AttemptDeclined): decline,
    (_S.EXECUTING, AttemptLost): lose,
}

IGNORED: Set[tuple[TaskState, type[Input]]] = {
    # the attempt's end was taken already, and the task waits for its next one
    (_S.PENDING, AttemptStarted),
    (_S.PENDING, AttemptFinished),
    (_S.PENDING, AttemptDeclined),
    (_S.PENDING, AttemptLost),
    (_S.PAUSED, AttemptStarted),
    (_S.PAUSED, AttemptFinished),
    (_S.PAUSED, AttemptDeclined),
    (_S.PAUSED, AttemptLost),
    # duplicates and old timers
    (_S.READY, DelayElapsed),
    (_S.EXECUTING, AttemptStarted),
    (_S.EXECUTING, DelayElapsed),
    (_S.PAUSED, DelayElapsed),
    # nothing changes an ended task
    (_S.COMPLETED, AttemptStarted),
    (_S.COMPLETED, AttemptFinished),
    (_S.COMPLETED, AttemptDeclined),
    (_S.COMPLETED, AttemptLost),
    (_S.COMPLETED, DelayElapsed),
    (_S.FAILED, AttemptStarted),
    (_S.FAILED, AttemptFinished),
    (_S.FAILED, AttemptDeclined),
    (_S.FAILED, AttemptLost),
    (_S.FAILED, DelayElapsed),
    (_S.CANCELLED, AttemptStarted),
    (_S.CANCELLED, AttemptFinished),
    (_S.CANCELLED, AttemptDeclined),
    (_S.CANCELLED, AttemptLost),
    (_S.CANCELLED, DelayElapsed),
    (_S.SKIPPED, AttemptStarted),
    (_S.SKIPPED, AttemptFinished),
    (_S.SKIPPED, AttemptDeclined),
    (_S.SKIPPED, AttemptLost),
    (_S.SKIPPED, DelayElapsed),
}

ILLEGAL: Set[tuple[TaskState, type[Input]]] = {
    # only what is runnable and not dispatched can be dispatched, excepted, reused or refused
    (_S.READY, AttemptDispatched),
    (_S.READY, TaskExcepted),
    (_S.READY, TaskReused),
    (_S.READY, TaskRefused),
    (_S.EXECUTING, AttemptDispatched),
    (_S.EXECUTING, TaskExcepted),
    (_S.EXECUTING, TaskReused),
    (_S.EXECUTING, TaskRefused),
    (_S.PAUSED, AttemptDispatched),
    (_S.PAUSED, TaskExcepted),
    (_S.PAUSED, TaskReused),
    (_S.PAUSED, TaskRefused),
    (_S.COMPLETED, AttemptDispatched),
    (_S.COMPLETED, TaskExcepted),
    (_S.COMPLETED, TaskReused),
    (_S.COMPLETED, TaskRefused),
    (_S.FAILED, AttemptDispatched),
    (_S.FAILED, TaskExcepted),
    (_S.FAILED, TaskReused),
    (_S.FAILED, TaskRefused),
    (_S.CANCELLED, AttemptDispatched),
    (_S.CANCELLED, TaskExcepted),
    (_S.CANCELLED, TaskReused),
    (_S.CANCELLED, TaskRefused),
    (_S.SKIPPED, AttemptDispatched),
    (_S.SKIPPED, TaskExcepted),
    (_S.SKIPPED, TaskReused),
    (_S.SKIPPED, TaskRefused),
    # approvals are not part of the language yet
    (_S.MANUAL_APPROVAL_REQUIRED, AttemptDispatched),
    (_S.MANUAL_APPROVAL_REQUIRED, TaskExcepted),
    (_S.MANUAL_APPROVAL_REQUIRED, TaskReused),
    (_S.MANUAL_APPROVAL_REQUIRED, TaskRefused),
    (_S.MANUAL_APPROVAL_REQUIRED, AttemptStarted),
    (_S.MANUAL_APPROVAL_REQUIRED, AttemptFinished),
    (_S.MANUAL_APPROVAL_REQUIRED, AttemptDeclined),
    (_S.MANUAL_APPROVAL_REQUIRED, AttemptLost),
    (_S.MANUAL_APPROVAL_REQUIRED, DelayElapsed),
}
