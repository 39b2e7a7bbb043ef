"""The third layer of ``JobRun``: carries out the rulings of ``task.py``."""

from collections.abc import Callable
from typing import cast

from executors.base import Reason
from formicary.ids import place_of, without_place
from formicary.model.states import ErrorCode, JobState, TaskState
from formicary.states import texts
from formicary.states.cells import Left, TaskCell
from formicary.states.index import BLOCKED, DELAYED, HELD
from formicary.states.inputs import (
    AttemptDispatched,
    AttemptFinished,
    AttemptLost,
    AttemptStarted,
    DelayElapsed,
    Input,
    TaskReused,
)
from formicary.states.job import RESTART_JOB
from formicary.states.phases import Phases
from formicary.states.retry import delay_before
from formicary.states.task import Action, Ruling


class Attempts(Phases):
    """What becomes of a task and its attempts."""

    __slots__ = ()

    def _dispatch(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        sent = cast("AttemptDispatched", event)
        if cell.attempt:
            cell.exit_code = None
            cell.error_code = None
            if cell.error_message != texts.ANT_LOST:
                cell.error_message = None
        cell.attempt += 1
        cell.state = TaskState.READY
        cell.job_attempt = self.job.attempt
        cell.is_first_there = cell.incarnation is None
        cell.incarnation = sent.incarnation
        cell.epoch = sent.epoch
        cell.memo = sent.memo
        cell.dispatched_at = sent.at
        self._index.waits[cell.no] = BLOCKED
        self._in_flight_count += 1
        self.changed_tasks[cell.no] = None

    def _start(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        cell.state = TaskState.EXECUTING
        cell.started_at = cast("AttemptStarted", event).started_at
        self.changed_tasks[cell.no] = None

    def _reuse(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        taken = cast("TaskReused", event)
        cell.attempt += 1
        cell.state = TaskState.COMPLETED
        cell.job_attempt = self.job.attempt
        cell.error_code = None
        cell.error_message = None
        cell.exit_code = taken.exit_code
        cell.outputs = taken.outputs
        cell.artifacts = taken.artifacts
        if taken.artifacts:
            self.left.append(Left(cell.no, cell.attempt, taken.artifacts))
        cell.reused_from = taken.source
        cell.finished_at = taken.at
        self._count_end(cell.no)
        self._settle(cell)

    def _except(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        cell.is_excepted = True
        cell.exit_code = None
        cell.error_code = None
        cell.error_message = None
        self._skip(cell)
        self._settle(cell)

    def _offer_now(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        is_due = self._index.waits[cell.no] == DELAYED
        if is_due and cast("DelayElapsed", event).job_attempt == self.job.attempt:
            self._offer(cell)

    def _take_end(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        """Writes the attempt's end into the cell."""
        self._in_flight_count -= 1
        cell.error_code = ruling.error_code
        cell.error_message = ruling.error_message
        if type(event) is not AttemptFinished:
            cell.finished_at = self._at
            return
        cell.exit_code = event.exit_code
        if cell.incarnation is not None and place_of(cell.incarnation) and _ended_by_itself(event):
            cell.incarnation = without_place(cell.incarnation)
        if event.started_at is not None:
            cell.started_at = event.started_at
        cell.finished_at = event.finished_at
        if cell.memo is not None:
            self._by_own_clock(cell)
        cell.outputs = event.outputs
        cell.artifacts = event.artifacts
        cell.cache = event.cache
        if event.artifacts:
            self.left.append(Left(cell.no, cell.attempt, event.artifacts))

    def _by_own_clock(self, cell: TaskCell) -> None:
        """Tells the times of an attempt by the owner's clock, as long as it took: the age of its result is measured."""
        assert cell.finished_at is not None, "its end was just taken"
        if cell.started_at is not None:
            cell.started_at += self._at - cell.finished_at
        cell.finished_at = self._at

    def _complete(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        cell.state = TaskState.COMPLETED
        self._count_end(cell.no)
        self._settle(cell)

    def _fail(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        retry = self.plan.tasks[cell.no].retry
        if self._may_start(cell.no) and cell.retries_used < retry.limit:
            delay_s = delay_before(retry, cell.retries_used, self._rng)
            cell.retries_used += 1
            self._repeat(cell, TaskState.FAILED, delay_s)
            return
        if ruling.action is Action.RESTART:
            cell.error_message = texts.used_up(self.plan.tasks[cell.no], cell.exit_code, "another try", retry.limit)
        self._end_failed(cell)

    def _fail_now(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        if cell.state is not TaskState.PENDING:
            if isinstance(event, AttemptLost):
                cell.ants_lost += 1
            self._take_end(cell, event, ruling)
        cell.error_code = ruling.error_code
        cell.error_message = ruling.error_message
        self._end_failed(cell)

    def _poll(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        retry = self.plan.tasks[cell.no].retry
        if cell.polls_used >= retry.limit:
            cell.error_code = ErrorCode.EXIT_CODE
            cell.error_message = texts.used_up(self.plan.tasks[cell.no], cell.exit_code, "another poll", retry.limit)
            self._end_failed(cell)
        elif self._may_start(cell.no):
            delay_s = delay_before(retry, cell.polls_used, self._rng)
            cell.polls_used += 1
            self._repeat(cell, _state_of(event), delay_s)
        else:
            self._end_cancelled(cell, texts.STOPPED_EARLY)

    def _pause_for(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        if self.job.cancelling or not self._may_start(cell.no):
            self._end_cancelled(cell, texts.STOPPED_EARLY)
            return
        cell.memo = None
        self._archive(cell, _state_of(event))
        cell.state = TaskState.PAUSED
        self.changed_tasks[cell.no] = None
        if self.job.state is JobState.EXECUTING:
            self._pause()

    def _restart_job(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        limit = self.plan.definition.retry.limit
        is_body = not self.plan.is_always_run[cell.no]
        if is_body and self._may_start(cell.no) and self.job.retries_used < limit:
            cell.state = TaskState.CANCELLED
            self._stop(RESTART_JOB, texts.RESTARTING)
            self._end_cancelled(cell, texts.RESTARTING)
            return
        cell.error_message = texts.used_up(self.plan.tasks[cell.no], cell.exit_code, "a restart of the job", limit)
        self._end_failed(cell)

    def _cancel_task(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        self._end_cancelled(cell, texts.STOPPED_BY_CANCEL if self.job.cancelling else texts.STOPPED)

    def _give_back(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        lost_before = cell.error_message
        self._take_end(cell, event, ruling)
        if cell.attempt == 1 or cell.is_first_there:
            cell.incarnation = None  # it never ran, so no place binds it
        self._repeat_for_free(cell, lost_before)

    def _lose(self, cell: TaskCell, event: Input, ruling: Ruling) -> None:
        self._take_end(cell, event, ruling)
        cell.ants_lost += cast("AttemptLost", event).counts
        if self._may_start(cell.no):
            self._repeat_for_free(cell, texts.ANT_LOST)
        else:
            self._end_cancelled(cell, texts.STOPPED_EARLY)

    def _repeat_for_free(self, cell: TaskCell, message: str | None) -> None:
        self._archive(cell, TaskState.CANCELLED)
        cell.error_message = message
        self._repeat(cell, TaskState.CANCELLED, 0.0)

    def _repeat(self, cell: TaskCell, ended: TaskState, delay_s: float) -> None:
        """Makes a task runnable again after an attempt that ended so: a success too is nobody's result then."""
        cell.memo = None
        self._archive(cell, ended)
        cell.state = TaskState.PENDING
        self.changed_tasks[cell.no] = None
        self._offer(cell, delay_s)

    def _pause(self) -> None:
        """Starts nothing new; what runs finishes, and the timeout stands still."""
        self._stop_counting()
        self.job.state = JobState.PAUSED
        self.job_changed = True
        self._withdraw(everything=True)

    def _unpause(self, cell: TaskCell) -> None:
        cell.state = TaskState.PENDING
        self.changed_tasks[cell.no] = None
        self._index.waits[cell.no] = HELD


def _ended_by_itself(event: AttemptFinished) -> bool:
    """Says whether there was a run, which is over, so that its place holds nothing of any earlier one either.

    Of one that was stopped or failed to start it may be unclear for a while whether anything was made for it.
    """
    if event.error_code is not None:
        return event.error_code == ErrorCode.EVICTED
    return event.reason not in _STOPPED


def _state_of(event: Input) -> TaskState:
    return TaskState.COMPLETED if cast("AttemptFinished", event).is_success else TaskState.FAILED


_STOPPED = frozenset([Reason.CANCELLED, Reason.TIMED_OUT])
Act = Callable[[Attempts, TaskCell, Input, Ruling], None]

#: How each action of a ruling is carried out.
ACTS: dict[Action, Act] = {
    Action.DISPATCH: Attempts._dispatch,
    Action.START: Attempts._start,
    Action.COMPLETE: Attempts._complete,
    Action.FAIL: Attempts._fail,
    Action.RESTART: Attempts._fail,
    Action.FAIL_NOW: Attempts._fail_now,
    Action.POLL: Attempts._poll,
    Action.PAUSE_JOB: Attempts._pause_for,
    Action.RESTART_JOB: Attempts._restart_job,
    Action.CANCEL: Attempts._cancel_task,
    Action.EXCEPT: Attempts._except,
    Action.REUSE: Attempts._reuse,
    Action.OFFER: Attempts._offer_now,
    Action.RETURN: Attempts._give_back,
    Action.LOSE: Attempts._lose,
}
