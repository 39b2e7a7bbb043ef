"""The second layer of ``JobRun``: the phases of a job attempt, its end, and the next one."""

from datetime import datetime
from typing import NamedTuple

from formicary.model.states import TERMINAL_TASK_STATES, ErrorCode, JobState, TaskState
from formicary.states import texts
from formicary.states.cells import TaskCell
from formicary.states.commands import EndJob, WatchTimeout
from formicary.states.flow import Flow
from formicary.states.index import BLOCKED, HELD
from formicary.states.job import RESTART_JOB
from formicary.states.restart import anew, reset
from formicary.states.retry import delay_before


class Verdict(NamedTuple):
    """How a job attempt ends."""

    state: JobState
    error_code: str | None = None
    error_message: str | None = None


class Phases(Flow):
    """Body, cleaning, end: see ``run.py``."""

    __slots__ = ()

    def _begin_attempt(self, delay_s: float = 0.0) -> None:
        """Starts the job's present attempt from the cells; the delay holds back what would start at once."""
        job = self.job
        job.elapsed_s = 0.0
        job.counting_since = self._at
        self.job_changed = True
        self._watch_timeout()
        self._opening_delay_s = delay_s
        self._rebuild()
        self._opening_delay_s = 0.0
        self._advance()

    def _watch_timeout(self) -> None:
        job = self.job
        counted_s = job.elapsed_s
        if job.counting_since is not None:
            counted_s += self._seconds_since(job.counting_since)
        rest_s = max(self.plan.definition.timeout_s - counted_s, 0.0)
        self._out.append(WatchTimeout(job.attempt, rest_s))

    def _stop_counting(self) -> None:
        job = self.job
        if job.counting_since is not None:
            job.elapsed_s += self._seconds_since(job.counting_since)
            job.counting_since = None

    def _seconds_since(self, at: datetime) -> float:
        """Returns the seconds since a time that another queen's clock, maybe ahead of this one, may have stamped."""
        return max((self._at - at).total_seconds(), 0.0)

    def _advance(self) -> None:
        """Goes to the next phase if the present one is over."""
        if self.job.state is not JobState.EXECUTING:
            return
        if self._open_count:
            if self._in_flight_count or not self._is_stopping:
                return
            self._close_open()
        self._clean_up()

    def _close_open(self, *, everything: bool = False) -> None:
        """Ends what waits for ever, the ``always_run`` tasks only with ``everything``."""
        for cell in self.tasks:
            if cell.state not in TERMINAL_TASK_STATES and (everything or not self.plan.is_always_run[cell.no]):
                self._give_up(cell)

    def _give_up(self, cell: TaskCell) -> None:
        """Ends a task that is not dispatched: SKIPPED, or as its last try says if it had one in this job attempt."""
        if cell.error_code is not None:
            self._end_failed(cell)
        elif _had_a_try(cell):
            self._end_cancelled(cell, texts.STOPPED_EARLY)
        else:
            self._skip(cell)

    def _end_cancelled(self, cell: TaskCell, message: str) -> None:
        cell.state = TaskState.CANCELLED
        cell.job_attempt = self.job.attempt
        cell.error_code = None
        cell.error_message = message
        cell.not_before = None
        if cell.finished_at is None:
            cell.finished_at = self._at
        self._count_end(cell.no)
        if not self.plan.is_always_run[cell.no]:
            self._settle(cell)

    def _clean_up(self) -> None:
        """Offers the next ``always_run`` task, or ends the attempt behind the last."""
        order = self.plan.always_run
        while self._cleaned_count < len(order):
            cell = self.tasks[order[self._cleaned_count]]
            if cell.state not in TERMINAL_TASK_STATES:
                if not self._is_over(cell):
                    return
                self._give_up(cell)
            self._cleaned_count += 1
        self._end_attempt()

    def _is_over(self, cell: TaskCell) -> bool:
        """Says whether an ``always_run`` task shall be given up; offers it if it shall run and does not yet."""
        if cell.state is not TaskState.PENDING:
            return False
        if self._is_hard:
            return True
        if self._index.waits[cell.no] in {BLOCKED, HELD}:
            self._offer_again(cell)
        return False

    def _end_attempt(self) -> None:
        job, retry = self.job, self.plan.definition.retry
        verdict = self._verdict()
        may_retry = job.retries_used < retry.limit and job.stop_code != ErrorCode.FATAL
        if verdict.state is not JobState.FAILED or not may_retry:
            self._end_job(verdict)
            return
        self._open_next_attempt()

    def _verdict(self) -> Verdict:
        job = self.job
        if job.cancelling:
            return Verdict(JobState.CANCELLED, ErrorCode.CANCELLED, job.stop_message)
        if job.stop_code is not None:
            return Verdict(JobState.FAILED, job.stop_code, job.stop_message)
        failed = [self.tasks[no] for no in self._failures] or self._failed_last()
        if not failed:
            return Verdict(JobState.COMPLETED)
        first = min(failed, key=lambda cell: (cell.finished_at or self._at, cell.no))
        return Verdict(JobState.FAILED, first.error_code, self._blame(first))

    def _failed_last(self) -> list[TaskCell]:
        cells = (self.tasks[no] for no in self.plan.always_run)
        return [cell for cell in cells if cell.state is TaskState.FAILED and not self.plan.tasks[cell.no].allow_failure]

    def _end_job(self, verdict: Verdict) -> None:
        job = self.job
        self._stop_counting()
        job.state, job.error_code, job.error_message = verdict
        job.finished_at = self._at
        job.cancelling = False
        job.stop_code = job.stop_message = None
        self.job_changed = True
        self._out.append(EndJob())

    def _open_next_attempt(self) -> None:
        job = self.job
        is_all = job.stop_code == RESTART_JOB
        chosen = range(self.plan.size) if is_all else anew(self.plan, self.tasks)
        delay_s = delay_before(self.plan.definition.retry, job.retries_used, self._rng)
        job.attempt += 1
        job.retries_used += 1
        job.stop_code = job.stop_message = None
        job.ignores_memo |= is_all
        for no in chosen:
            self._reset(self.tasks[no])
        self._begin_attempt(delay_s)

    def _reset(self, cell: TaskCell) -> None:
        self._archive(cell, cell.state)
        reset(cell, self.job.attempt)
        self.changed_tasks[cell.no] = None


def _had_a_try(cell: TaskCell) -> bool:
    """Says whether a task that waits ran in this job attempt, or may have: a lost ant need not have told of it."""
    is_repeated = cell.polls_used or cell.retries_used or cell.ants_lost or cell.error_message == texts.ANT_LOST
    return bool(is_repeated) or cell.state is TaskState.PAUSED
