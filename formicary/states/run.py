"""One job's state machine: an input comes in, cells change, commands go out.

``JobRun`` carries out what the tables of ``task.py`` and ``job.py`` rule, in layers: ``flow.py`` (edges, what may
start), ``phases.py`` (body, cleaning, end), ``attempts.py`` (what becomes of a task), and here the door. It owns the
cells and an edge index that can be derived from them at any point (``recover``); a step costs O(edges of the task
concerned). A job attempt is

1. the *body*: tasks run as their edges resolve. It is over when every task has ended, or, once the job is stopping,
   when no attempt is under way; then every task that was not run is SKIPPED;
2. the *cleaning*: ``always_run`` tasks, one after the other, whatever happened before;
3. the end: the job is over, or its next attempt opens.

Who decides the end: cancel; then what stopped the job: FATAL, the timeout, RESTART_JOB or the first failure that nobody
handles; then handled failures; then ``always_run``. While paused nothing starts, neither a task nor the next phase.
"""

import random
from collections.abc import Callable
from datetime import datetime
from typing import cast

from formicary.model.states import ErrorCode, JobState, TaskState
from formicary.states import job as job_table
from formicary.states import task as task_table
from formicary.states import texts
from formicary.states.attempts import ACTS, Attempts
from formicary.states.cells import JobCell, TaskCell
from formicary.states.commands import Command, Requeue
from formicary.states.errors import IllegalTransitionError, RefusedError
from formicary.states.graph import Plan
from formicary.states.index import OFFERED
from formicary.states.inputs import (
    AttemptDeclined,
    AttemptDispatched,
    AttemptFinished,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    DelayElapsed,
    Input,
    JobBegan,
    RestartMode,
    RestartRequested,
    TaskExcepted,
    TaskRefused,
    TaskReused,
)
from formicary.states.job import Step
from formicary.states.phases import Verdict
from formicary.states.restart import anew

#: Inputs that the error's story tells.
_STORY_LENGTH = 20

#: True: about one attempt, late unless it is the current one. False: about a task that was offered to the owner.
_TASK_INPUTS: dict[type[Input], bool] = {
    AttemptStarted: True,
    AttemptFinished: True,
    AttemptDeclined: True,
    AttemptLost: True,
    DelayElapsed: True,
    AttemptDispatched: False,
    TaskExcepted: False,
    TaskReused: False,
    TaskRefused: False,
}


class JobRun(Attempts):
    """A running job; the only one who changes its cells."""

    __slots__ = ("_story",)

    def __init__(self, plan: Plan, job: JobCell, tasks: list[TaskCell] | None = None, *, rng: random.Random) -> None:
        """Takes a job as it is stored; nothing happens before ``step(JobBegan)`` (READY) or ``recover`` (later states).

        Args:
            plan: the compiled definition of the job's version.
            job: its cell.
            tasks: all cells, by number; None for a job that never began.
            rng: where the jitter of retries comes from.
        """
        super().__init__(plan, job, tasks, rng)
        self._story: list[tuple[type[Input], int, str]] = []

    def step(self, event: Input) -> list[Command]:
        """Takes one input; returns what the owner shall do once the changed cells are committed.

        Raises:
            RefusedError: a person's command does not fit; nothing changed.
            IllegalTransitionError: the input can never meet this state; nothing changed.
        """
        self._at = event.at
        out: list[Command] = []
        self._out = out
        kind = type(event)
        is_of_attempt = _TASK_INPUTS.get(kind)
        if is_of_attempt is None:
            self._step_job(kind, event)
        else:
            self._step_task(kind, event, is_of_attempt)
        return out

    def recover(self, at: datetime) -> list[Command]:
        """Rebuilds from the cells what a running job needs, after a crash at any point; returns what is outstanding.

        These are ``MakeRunnable`` for what is runnable and not dispatched, ``WakeAfter`` and ``WatchTimeout`` with what
        is left of them, and ``StopAttempt`` for the attempts that shall stop. For a job that waits for its start:
        nothing.
        """
        self._at = at
        out: list[Command] = []
        self._out = out
        if self.job.state not in {JobState.EXECUTING, JobState.PAUSED}:
            return out
        self._rebuild()
        if self.job.counting_since is not None and self._open_count and not self.job.cancelling:
            self._watch_timeout()
        self._stop_attempts()
        self._advance()
        return out

    def _step_task(self, kind: type[Input], event: Input, is_of_attempt: bool) -> None:
        no: int = event.task_no  # type: ignore[attr-defined]  # every input of the table has it
        cell = self.tasks[no]
        if is_of_attempt and event.attempt != cell.attempt:  # type: ignore[attr-defined]  # so do those
            return
        key = (cell.state, kind)
        rule = task_table.RULES.get(key)
        if rule is None and key in task_table.IGNORED:
            return
        if rule is None or not (is_of_attempt or self._index.waits[no] == OFFERED):
            raise self._illegal(f'task "{self.plan.tasks[no].task_type}"', cell.state, kind)
        self._remember(kind, no, cell.state)
        ruling = rule(cell, event, self.plan, self._is_killing and self._must_stop(no))
        if ruling is task_table.NOTHING:
            return
        ACTS[ruling.action](self, cell, event, ruling)
        if not self._in_flight_count or not self._open_count:
            self._advance()

    def _step_job(self, kind: type[Input], event: Input) -> None:
        key = (self.job.state, kind)
        rule = job_table.RULES.get(key)
        if rule is None:
            if key in job_table.IGNORED:
                return
            if key in job_table.REFUSED:
                raise RefusedError(job_table.REFUSED[key])
            raise self._illegal("the job", self.job.state, kind)
        step = rule(self.job, event)
        if step is not Step.NOTHING:
            self._remember(kind, -1, self.job.state)
            _STEPS[step](self, event)

    def _begin(self, event: Input) -> None:
        self._enter()
        self._begin_attempt()

    def _skip_all(self, event: Input) -> None:
        self._enter()
        self._close_open(everything=True)
        self._end_job(Verdict(JobState.COMPLETED))

    def _refuse_all(self, event: Input) -> None:
        began = cast("JobBegan", event)
        self._enter()
        self._close_open(everything=True)
        self._end_job(Verdict(JobState.FAILED, began.error_code, began.error_message))

    def _enter(self) -> None:
        self.job.state = JobState.EXECUTING
        self.job.started_at = self._at
        self._read_flags()

    def _pause_job(self, event: Input) -> None:
        self._pause()

    def _resume(self, event: Input) -> None:
        self._go_on()
        self.job.counting_since = self._at
        if self._open_count:
            self._watch_timeout()
        for cell in self.tasks:
            if cell.state is TaskState.PAUSED:
                self._unpause(cell)
        self._offer_held()
        self._advance()

    def _go_on(self) -> None:
        self.job.state = JobState.EXECUTING
        self.job_changed = True

    def _cancel(self, event: Input) -> None:
        self.job.cancelling = True
        self.job.stop_code = None
        self.job.stop_message = cast("CancelRequested", event).reason
        if self.job.state is JobState.PAUSED:
            self._go_on()
            for no in self.plan.always_run:
                if self.tasks[no].state is TaskState.PAUSED:
                    self._unpause(self.tasks[no])
        self._stopped()
        self._advance()

    def _cancel_at_once(self, event: Input) -> None:
        self.job.stop_code = ErrorCode.CANCELLED
        self._stopped()
        self._advance()

    def _drop(self, event: Input) -> None:
        self._close_open(everything=True)
        self._end_job(Verdict(JobState.CANCELLED, ErrorCode.CANCELLED, cast("CancelRequested", event).reason))

    def _time_out(self, event: Input) -> None:
        if self._open_count:
            self._stop(ErrorCode.JOB_TIMEOUT, texts.job_timeout(self.plan.definition))
            self._advance()

    def _restart(self, event: Input) -> None:
        wish = cast("RestartRequested", event)
        if wish.from_task is not None and not 0 <= wish.from_task < self.plan.size:
            raise RefusedError(f"the job has no task number {wish.from_task}")
        job = self.job
        job.attempt += 1
        job.retries_used = 0
        job.state = JobState.PENDING
        job.elapsed_s = 0.0
        job.started_at = job.finished_at = None
        job.error_code = job.error_message = None
        self.job_changed = True
        job.ignores_memo = wish.from_task is not None or wish.mode is RestartMode.ALL
        for no in self._wished(wish):
            self._reset(self.tasks[no])
        self._out.append(Requeue())

    def _wished(self, wish: RestartRequested) -> list[int]:
        if wish.from_task is not None:
            return anew(self.plan, self.tasks, (wish.from_task,))
        if wish.mode is RestartMode.ALL:
            return list(range(self.plan.size))
        return anew(self.plan, self.tasks)

    def _remember(self, kind: type[Input], no: int, state: str) -> None:
        story = self._story
        story.append((kind, no, state))
        if len(story) > 2 * _STORY_LENGTH:
            del story[:-_STORY_LENGTH]

    def _illegal(self, subject: str, state: str, kind: type[Input]) -> IllegalTransitionError:
        told = [
            f"{'job' if no < 0 else self.plan.tasks[no].task_type} {was} {what.__name__}"
            for what, no, was in self._story
        ]
        story = f"job {self.job.id} is {self.job.state} in attempt {self.job.attempt}; its story: "
        return IllegalTransitionError(
            subject, state, kind.__name__, story + (", ".join(told[-_STORY_LENGTH:]) or "none")
        )


#: How each step of the job is carried out.
_STEPS: dict[Step, Callable[[JobRun, Input], None]] = {
    Step.BEGIN: JobRun._begin,
    Step.SKIP: JobRun._skip_all,
    Step.PAUSE: JobRun._pause_job,
    Step.RESUME: JobRun._resume,
    Step.CANCEL: JobRun._cancel,
    Step.CANCEL_AT_ONCE: JobRun._cancel_at_once,
    Step.DROP: JobRun._drop,
    Step.TIME_OUT: JobRun._time_out,
    Step.RESTART: JobRun._restart,
    Step.REFUSE: JobRun._refuse_all,
}
