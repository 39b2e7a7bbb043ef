"""One step: an input to a job's state machine, and what its commands mean here.

The engine changes memory only. What it collects in the open ``Batch`` is committed first and published after.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import structlog

from formicary.bus import Outgoing
from formicary.clock import Clock
from formicary.errors import FormicaryError
from formicary.events.tasks import TaskCancelRequested
from formicary.ids import Incarnation
from formicary.model.states import ErrorCode
from formicary.queen.registry import AntRegistry
from formicary.queen.supervisor.batch import Batch
from formicary.queen.supervisor.live import AttemptKey, LiveJob, LiveShard
from formicary.queen.supervisor.ready import ReadyQueue
from formicary.queen.supervisor.rendering import is_excepted, memo_of
from formicary.queen.supervisor.timers import Timeout, Timers, Wake
from formicary.states.commands import (
    Command,
    EndJob,
    MakeRunnable,
    Requeue,
    StopAttempt,
    WakeAfter,
    WatchTimeout,
    Withdraw,
)
from formicary.states.errors import IllegalTransitionError
from formicary.states.inputs import Input, TaskExcepted, TaskRefused

log = structlog.get_logger(__name__)


class Chore(NamedTuple):
    """A runnable task that the queen does itself."""

    live: LiveJob
    task_no: int


class MemoAsk(NamedTuple):
    """A runnable task that may not have to run, and what the result of a run with equal inputs is kept under."""

    live: LiveJob
    task_no: int
    memo: str
    max_age_s: float | None

    def is_open(self) -> bool:
        """Says whether the task still waits for the answer: to this question, not to a later one."""
        live = self.live
        is_same = live.memos is not None and live.memos.get(self.task_no) == self.memo
        return is_same and not live.is_gone and live.run.is_waiting(self.task_no)


class Engine:
    """Steps jobs and carries their commands out in memory."""

    def __init__(self, registry: AntRegistry, clock: Clock) -> None:
        self.registry = registry
        self.clock = clock
        self.ready = ReadyQueue()
        self.timers = Timers()
        self.batch = Batch()
        #: Jobs that say why they wait.
        self.explained: list[LiveJob] = []
        #: When an ant that declined may be asked again, though nothing else happens (boot time).
        self.retry_at: float | None = None
        #: What ``chores.py`` shall do, and that there is something.
        self.chores: list[Chore] = []
        self.chores_asked = asyncio.Event()
        #: What ``memos.py`` shall look for, and that there is something.
        self.asks: list[MemoAsk] = []
        self.asked = asyncio.Event()
        #: What each command means here; it returns what follows from it for the same job at once, if anything does.
        self._handlers: dict[type[Command], Callable[[LiveJob, Command], Input | None]] = {
            MakeRunnable: self._make_runnable,
            Withdraw: self._withdraw,
            StopAttempt: self._stop_attempt,
            WakeAfter: self._wake_after,
            WatchTimeout: self._watch_timeout,
            EndJob: self._end_job,
            Requeue: self._requeue,
        }

    def step(self, live: LiveJob, event: Input) -> None:
        """Feeds one input to the job and carries out what follows.

        Raises:
            RefusedError: a person's command does not fit; nothing changed.
        """
        if commands := self._take(live, event):
            self.carry_out(live, commands)

    def carry_out(self, live: LiveJob, commands: list[Command]) -> None:
        """Carries out the commands of a step or of a recovery, and those of the inputs that follow from them.

        One after the other, not each within the one before: a chain of tasks may be longer than the stack is deep.
        """
        handlers = self._handlers
        for command in commands:  # grows meanwhile
            event = handlers[type(command)](live, command)
            if event is not None:
                commands.extend(self._take(live, event))

    def _take(self, live: LiveJob, event: Input) -> list[Command]:
        try:
            commands = live.run.step(event)
        except IllegalTransitionError as error:
            # A defect must not take the jobs of everybody else down; the input changed nothing.
            log.error("illegal_transition", job_id=live.id, reason=str(error))
            return []
        self.batch.touch(live)
        return commands

    def release(self, shard: LiveShard, key: AttemptKey) -> Incarnation | None:
        """Forgets that an attempt is with an ant, and gives its room back; returns which ant had it."""
        dispatch = shard.in_flight.pop(key, None)
        incarnation = dispatch.incarnation if dispatch is not None else shard.inherited.pop(key, None)
        if shard.stops:
            shard.stops.pop(key, None)
        if incarnation is None:
            return None
        ant = self.registry.get(incarnation)
        if ant is not None:
            ant.attempts.discard(key)
        return incarnation

    def ask_to_stop(self, shard: LiveShard, key: AttemptKey) -> None:
        """Sends the ant that holds the attempt a request to stop it; sweeps repeat it until the attempt ended."""
        dispatch = shard.in_flight.get(key)
        incarnation = dispatch.incarnation if dispatch is not None else shard.inherited.get(key)
        shard.stops[key] = self.clock.boottime()
        ant = self.registry.get(incarnation)
        if ant is None or incarnation is None:
            return
        job_id, task_no, attempt = key
        event = TaskCancelRequested(
            job_id=job_id,
            task_no=task_no,
            attempt=attempt,
            shard=shard.number,
            epoch=shard.epoch,
            incarnation=incarnation,
        )
        self.batch.outgoing.append(Outgoing(ant.registration.inbox_topic, ant.registration.inbox_key, event))
        self.batch.shards[shard] = None

    def _make_runnable(self, live: LiveJob, command: Command) -> Input | None:
        assert isinstance(command, MakeRunnable)
        task_no = command.task_no
        if live.program.tasks[task_no].has_except and live.run.is_waiting(task_no):
            now = self.clock.now()
            try:
                excepted = is_excepted(live, task_no, now)
            except FormicaryError as error:
                return refusal(task_no, error, now)
            if excepted:
                return TaskExcepted(task_no=task_no, at=now)
        if live.program.tasks[task_no].is_chore:
            self.chores.append(Chore(live, task_no))
            self.chores_asked.set()
            return None
        if live.program.tasks[task_no].has_memo and live.run.is_waiting(task_no):
            return self._ask_memo(live, task_no)
        self.ready.add(live, task_no)
        return None

    def _ask_memo(self, live: LiveJob, task_no: int) -> Input | None:
        """Has an earlier result looked for; a job that was restarted hard takes none, but leaves its own."""
        now = self.clock.now()
        try:
            memo = memo_of(live, task_no, now)
        except FormicaryError as error:
            return refusal(task_no, error, now)
        live.memos = live.memos or {}
        live.memos[task_no] = memo
        policy = live.program.tasks[task_no].definition.memoize
        if live.run.job.ignores_memo or policy is None:
            self.ready.add(live, task_no)
            return None
        self.asks.append(MemoAsk(live, task_no, memo, policy.expires_after_s))
        self.asked.set()
        return None

    def _withdraw(self, live: LiveJob, command: Command) -> None:
        """Does nothing: the queue passes over what does not wait any more."""

    def _stop_attempt(self, live: LiveJob, command: Command) -> None:
        assert isinstance(command, StopAttempt)
        self.ask_to_stop(live.shard, (live.id, command.task_no, command.attempt))

    def _wake_after(self, live: LiveJob, command: Command) -> None:
        assert isinstance(command, WakeAfter)
        due = self.clock.boottime() + command.delay_s
        self.timers.add(due, Wake(live, command.task_no, command.attempt, command.job_attempt))

    def _watch_timeout(self, live: LiveJob, command: Command) -> None:
        assert isinstance(command, WatchTimeout)
        live.watch_number += 1
        due = self.clock.boottime() + command.delay_s
        self.timers.add(due, Timeout(live, live.watch_number, command.job_attempt))

    def _end_job(self, live: LiveJob, command: Command) -> None:
        self._leave(live)
        self.batch.end(live)

    def _requeue(self, live: LiveJob, command: Command) -> None:
        self._leave(live)
        self.batch.requeue(live)

    def _leave(self, live: LiveJob) -> None:
        live.shard.jobs.pop(live.id, None)
        self.forget(live)

    def forget(self, live: LiveJob) -> None:
        """Marks a job as gone from memory: its timers, and its tasks that wait, are passed over and let go of."""
        live.is_gone = True
        self.timers.job_gone()
        self.ready.job_gone()


def refusal(task_no: int, error: FormicaryError, at: datetime) -> TaskRefused:
    """Returns the input for a task that can never be dispatched because of ``error``."""
    code = error.code if error.code.startswith("ERR_") else ErrorCode.VALIDATION
    return TaskRefused(task_no=task_no, error_code=code, error_message=str(error), at=at)
