"""The first layer of ``JobRun``: cells, edges, and what may start."""

import random
from datetime import UTC, datetime, timedelta

from formicary.model.states import TERMINAL_TASK_STATES, ErrorCode, JobState, TaskState
from formicary.states import texts
from formicary.states.cells import JobCell, Left, TaskCell
from formicary.states.commands import Command, MakeRunnable, StopAttempt, WakeAfter, Withdraw
from formicary.states.graph import Plan
from formicary.states.index import BLOCKED, DELAYED, HELD, OFFERED, EdgeIndex
from formicary.states.job import RESTART_JOB
from formicary.states.restart import forget_attempt
from formicary.states.retry import longest_delay

#: Which reason to stop replaces which: a higher one a lower one. A task's failure is 0.
_WEIGHTS: dict[str, int] = {RESTART_JOB: 1, ErrorCode.JOB_TIMEOUT: 2, ErrorCode.FATAL: 3}

#: Before the first input.
_NEVER = datetime.min.replace(tzinfo=UTC)


class Flow:
    """Starts what its edges allow, passes on what ended, holds back what must not start.

    Attributes:
        plan: the compiled definition.
        job: the job's cell.
        tasks: the cells by number.
        changed_tasks: numbers of the cells that changed since the owner last took them, in order; the owner clears it.
        job_changed: the job's cell changed since the owner last took it; the owner resets it.
        archived: ended attempts whose data their cell has lost, as snapshots; the owner takes and clears them.
        left: artifacts of attempts whose end was taken; the owner takes and clears them.
    """

    __slots__ = (
        "_at",
        "_cleaned_count",
        "_failures",
        "_in_flight_count",
        "_index",
        "_is_hard",
        "_is_killing",
        "_is_stopping",
        "_open_count",
        "_opening_delay_s",
        "_out",
        "_rng",
        "archived",
        "changed_tasks",
        "job",
        "job_changed",
        "left",
        "plan",
        "tasks",
    )

    def __init__(self, plan: Plan, job: JobCell, tasks: list[TaskCell] | None, rng: random.Random) -> None:
        self.plan = plan
        self.job = job
        self.tasks = [TaskCell(no) for no in range(plan.size)] if tasks is None else tasks
        self.changed_tasks: dict[int, None] = {}
        self.job_changed = False
        self.archived: list[TaskCell] = []
        self.left: list[Left] = []
        self._rng = rng
        self._at = _NEVER
        self._out: list[Command] = []
        self._opening_delay_s = 0.0
        self._index = EdgeIndex(plan)
        self._open_count = plan.size - len(plan.always_run)
        self._in_flight_count = 0
        self._cleaned_count = 0
        self._failures: list[int] = []
        self._read_flags()

    def is_waiting(self, no: int) -> bool:
        """Says whether a task was made runnable and neither dispatched nor withdrawn since."""
        return self._index.waits[no] == OFFERED

    @property
    def open_count(self) -> int:
        """Tasks that have not ended, ``always_run`` ones left out."""
        return self._open_count

    @property
    def in_flight_count(self) -> int:
        """Attempts that were dispatched and have not ended."""
        return self._in_flight_count

    def _read_flags(self) -> None:
        """Derives from the job's cell what may start and what must stop."""
        job = self.job
        code = job.stop_code
        self._is_stopping = job.cancelling or code is not None
        self._is_hard = job.cancelling and code == ErrorCode.CANCELLED
        is_abrupt = self.plan.definition.fail_fast or _WEIGHTS.get(code or "", 0) > 0
        self._is_killing = job.cancelling or (code is not None and is_abrupt)

    def _may_start(self, no: int) -> bool:
        return not (self._is_hard if self.plan.is_always_run[no] else self._is_stopping)

    def _must_stop(self, no: int) -> bool:
        return self._is_hard if self.plan.is_always_run[no] else self._is_killing

    def _offer(self, cell: TaskCell, delay_s: float = 0.0) -> None:
        """Makes a PENDING task with no open edge runnable, now or after a delay."""
        no = cell.no
        if delay_s > 0:
            cell.not_before = self._at + timedelta(seconds=delay_s)
            self.changed_tasks[no] = None
            self._wake_after(cell, delay_s)
            return
        cell.not_before = None
        if self.job.state is JobState.EXECUTING and self._may_start(no):
            self._index.waits[no] = OFFERED
            self._out.append(MakeRunnable(no))
        else:
            self._index.waits[no] = HELD

    def _wake_after(self, cell: TaskCell, delay_s: float) -> None:
        self._index.waits[cell.no] = DELAYED
        self._out.append(WakeAfter(cell.no, cell.attempt, self.job.attempt, delay_s))

    def _offer_held(self) -> None:
        for no in self._index.waiting(HELD):
            self._offer(self.tasks[no])

    def _withdraw(self, *, everything: bool = False) -> None:
        """Takes back what was offered and may not start; ``everything`` in a pause."""
        for no in self._index.waiting(OFFERED):
            if everything or not self._may_start(no):
                self._index.waits[no] = HELD
                self._out.append(Withdraw(no))

    def _settle(self, cell: TaskCell) -> None:
        """Resolves the edges of an ended task, and of those that are skipped in consequence."""
        tasks, index, plan = self.tasks, self._index, self.plan
        stack = [cell]
        while stack:
            for no in index.resolve(plan.route(stack.pop())):
                target = tasks[no]
                if target.state is not TaskState.PENDING:
                    continue
                if index.may_run(no):
                    self._offer(target, self._opening_delay_s)
                else:
                    self._skip(target)
                    stack.append(target)

    def _skip(self, cell: TaskCell) -> None:
        cell.state = TaskState.SKIPPED
        cell.job_attempt = self.job.attempt
        cell.not_before = None
        self._count_end(cell.no)

    def _count_end(self, no: int) -> None:
        self.changed_tasks[no] = None
        self._index.waits[no] = BLOCKED
        if not self.plan.is_always_run[no]:
            self._open_count -= 1

    def _end_failed(self, cell: TaskCell) -> None:
        """Ends a task FAILED, for good in this job attempt; an unhandled failure stops the job first."""
        no = cell.no
        cell.state = TaskState.FAILED
        cell.job_attempt = self.job.attempt
        cell.not_before = None
        if cell.finished_at is None:
            cell.finished_at = self._at
        self._count_end(no)
        if self.plan.is_always_run[no]:
            return
        is_allowed = self.plan.tasks[no].allow_failure
        if not is_allowed:
            self._failures.append(no)
        if cell.error_code == ErrorCode.FATAL or not (is_allowed or self.plan.has_handler(no)):
            self._stop(cell.error_code or ErrorCode.EXECUTOR, self._blame(cell))
        self._settle(cell)

    def _blame(self, cell: TaskCell) -> str:
        return texts.task_failed(self.plan.tasks[cell.no].task_type, cell.error_message)

    def _stop(self, code: str, message: str) -> None:
        """Lets nothing new start in this job attempt, unless a weightier reason did already."""
        job = self.job
        if job.cancelling or (job.stop_code is not None and _WEIGHTS.get(code, 0) <= _WEIGHTS.get(job.stop_code, 0)):
            return
        job.stop_code = code
        job.stop_message = message
        self._stopped()

    def _stopped(self) -> None:
        """Carries out what a new reason to stop asks for."""
        self.job_changed = True
        was_killing, was_hard = self._is_killing, self._is_hard
        self._read_flags()
        self._withdraw()
        if (self._is_killing and not was_killing) or (self._is_hard and not was_hard):
            self._stop_attempts()

    def _stop_attempts(self) -> None:
        if not self._in_flight_count:
            return
        for cell in self.tasks:
            if (cell.state is TaskState.READY or cell.state is TaskState.EXECUTING) and self._must_stop(cell.no):
                self._out.append(StopAttempt(cell.no, cell.attempt))

    def _archive(self, cell: TaskCell, state: TaskState) -> None:
        """Writes the ended attempt to history, once, before its cell loses it."""
        if cell.dispatched_at is None and cell.reused_from is None:
            return
        ended = cell.snapshot()
        ended.state = state
        ended.not_before = None
        self.archived.append(ended)
        forget_attempt(cell)

    def _rebuild(self) -> None:
        """Derives index and counts from the cells, then judges every task whose edges are all resolved."""
        plan, index = self.plan, EdgeIndex(self.plan)
        self._index = index
        self._failures = []
        self._cleaned_count = self._open_count = self._in_flight_count = 0
        self._read_flags()
        for cell in self.tasks:
            self._count_in(cell)
        for cell in self.tasks:
            no = cell.no
            if cell.state is TaskState.PENDING and not (
                index.unresolved[no] or index.waits[no] or plan.is_always_run[no]
            ):
                self._judge(cell)

    def _count_in(self, cell: TaskCell) -> None:
        state, is_body = cell.state, not self.plan.is_always_run[cell.no]
        if state not in TERMINAL_TASK_STATES:
            self._open_count += is_body
            self._in_flight_count += state is TaskState.READY or state is TaskState.EXECUTING
            return
        if is_body:
            self._index.resolve(self.plan.route(cell))
            if state is TaskState.FAILED and not self.plan.tasks[cell.no].allow_failure:
                self._failures.append(cell.no)

    def _judge(self, cell: TaskCell) -> None:
        if self.plan.in_counts[cell.no] and not self._index.may_run(cell.no):
            self._skip(cell)
            self._settle(cell)
            return
        self._offer_again(cell)

    def _offer_again(self, cell: TaskCell) -> None:
        """Offers a task of the past, after the rest of the delay that it waits for."""
        if cell.not_before is not None and cell.not_before > self._at:
            # By the clock of another queen, perhaps: one that was ahead must not make the delay longer than it is.
            policies = (self.plan.tasks[cell.no].retry, self.plan.definition.retry)
            longest_s = max(longest_delay(policy) for policy in policies)
            self._wake_after(cell, min((cell.not_before - self._at).total_seconds(), longest_s))
        else:
            self._offer(cell, self._opening_delay_s)
