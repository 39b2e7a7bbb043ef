"""A job without queen and ants: drives one ``JobRun`` by hand, in virtual time, and keeps an owner's books of it."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from executors.specs import DummySpec
from formicary.ids import Incarnation, JobId
from formicary.model.definition import JobDefinition, RetryPolicy, TaskDefinition
from formicary.model.jobs import ReusedFrom
from formicary.model.states import JobState, TaskState
from formicary.states.cells import JobCell, TaskCell
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
from formicary.states.graph import Plan
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
    JobTimedOut,
    PauseRequested,
    RestartMode,
    RestartRequested,
    ResumeRequested,
    TaskExcepted,
    TaskRefused,
    TaskReused,
)
from formicary.states.run import JobRun

ANT = Incarnation("ant-1@0")


def task(
    name: str,
    *,
    after: Iterable[str] = (),
    on_completed: Iterable[str] = (),
    on_failed: Iterable[str] = (),
    codes: dict[str, str] | None = None,
    retry: int | RetryPolicy = 0,
    allow_failure: bool = False,
    always_run: bool = False,
    method: str = "DUMMY",
) -> TaskDefinition:
    """Returns a task that does nothing; ``after`` are its dependencies, ``codes`` its ``on_exit_code``."""
    return TaskDefinition(
        task_type=name,
        method=method,
        spec=DummySpec(),
        dependencies=tuple(after),
        on_completed=tuple(on_completed),
        on_failed=tuple(on_failed),
        on_exit_code=codes or {},
        retry=retry if isinstance(retry, RetryPolicy) else RetryPolicy(limit=retry),
        allow_failure=allow_failure,
        always_run=always_run,
    )


def job(
    tasks: Sequence[TaskDefinition], *, retry: int | RetryPolicy = 0, fail_fast: bool = False, timeout_s: float = 7200.0
) -> JobDefinition:
    """Returns a definition of these tasks."""
    policy = retry if isinstance(retry, RetryPolicy) else RetryPolicy(limit=retry)
    return JobDefinition(job_type="drill", tasks=tuple(tasks), retry=policy, fail_fast=fail_fast, timeout_s=timeout_s)


class Drill:
    """A job under hand control; every method that feeds an input returns the commands of that step.

    Attributes:
        run: the machine.
        now: virtual time; ``wait`` moves it.
        offered: tasks that may be dispatched, in the order of their offer.
        timers: task -> the latest ``WakeAfter`` that has not been fed back.
        stops: (task, attempt) pairs that were asked to stop.
        watch: the latest ``WatchTimeout``.
        order: tasks in the order of their dispatches.
        last: the last input.
        is_over: ``EndJob`` or ``Requeue`` was seen.
    """

    def __init__(self, definition: JobDefinition, *, seed: int = 0) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.plan = Plan.compile(definition)
        self.names = [each.task_type for each in definition.tasks]
        self._rng = random.Random(seed)
        self.run = JobRun(self.plan, JobCell(JobId("job-1")), rng=self._rng)
        self.order: list[str] = []
        self.last: Input | None = None
        self._open_books()

    def _open_books(self) -> None:
        self.offered: dict[str, None] = {}
        self.timers: dict[str, WakeAfter] = {}
        self.stops: list[tuple[str, int]] = []
        self.watch: WatchTimeout | None = None
        self.is_over = False

    def no(self, name: str) -> int:
        """Returns the number of a task."""
        return self.plan.numbers[name]

    def cell(self, name: str) -> TaskCell:
        """Returns the cell of a task."""
        return self.run.tasks[self.no(name)]

    @property
    def job(self) -> JobCell:
        """The job's cell."""
        return self.run.job

    @property
    def states(self) -> dict[str, str]:
        """The state of every task, by name."""
        return {name: cell.state.value for name, cell in zip(self.names, self.run.tasks, strict=True)}

    def in_state(self, state: TaskState) -> list[str]:
        """Returns the tasks in a state, in definition order."""
        return [name for name, cell in zip(self.names, self.run.tasks, strict=True) if cell.state is state]

    def wait(self, seconds: float) -> None:
        """Moves the time on."""
        self.now += timedelta(seconds=seconds)

    def feed(self, event: Input) -> list[Command]:
        """Feeds any input and books what it asks for."""
        self.last = event
        commands = self.run.step(event)
        self.book(commands)
        return commands

    def book(self, commands: Iterable[Command]) -> None:
        """Enters commands into the books, as an owner would."""
        for command in commands:
            match command:
                case MakeRunnable(no):
                    self.offered[self.names[no]] = None
                case Withdraw(no):
                    del self.offered[self.names[no]]
                case StopAttempt(no, attempt):
                    self.stops.append((self.names[no], attempt))
                case WakeAfter(no):
                    self.timers[self.names[no]] = command
                case WatchTimeout():
                    self.watch = command
                case EndJob() | Requeue():
                    self.is_over = True

    def begin(self, *, skip: bool = False) -> list[Command]:
        """The job starts."""
        return self.feed(JobBegan(at=self.now, skip=skip))

    def dispatch(self, name: str) -> list[Command]:
        """An ant is chosen for an offered task."""
        self.offered.pop(name, None)
        self.order.append(name)
        return self.feed(AttemptDispatched(at=self.now, task_no=self.no(name), incarnation=ANT, epoch=1))

    def start(self, name: str) -> list[Command]:
        """The current attempt runs."""
        at = self.now
        return self.feed(AttemptStarted(at=at, task_no=self.no(name), attempt=self.cell(name).attempt, started_at=at))

    def finished(self, name: str, code: int | None = 0, reason: str = "exited") -> AttemptFinished:
        """Returns the end of the current attempt as an input."""
        return AttemptFinished(
            at=self.now,
            task_no=self.no(name),
            attempt=self.cell(name).attempt,
            reason=reason,
            exit_code=code,
            is_success=code == 0 and reason == "exited",
            started_at=self.now,
            finished_at=self.now,
        )

    def finish(self, name: str, code: int | None = 0, reason: str = "exited") -> list[Command]:
        """The current attempt ends."""
        return self.feed(self.finished(name, code, reason))

    def end(self, name: str, code: int | None = 0, reason: str = "exited") -> list[Command]:
        """An offered task is dispatched and ends."""
        self.dispatch(name)
        return self.finish(name, code, reason)

    def refuse(self, name: str, error_code: str = "ERR_TEMPLATE") -> list[Command]:
        """An offered task cannot be rendered."""
        self.offered.pop(name, None)
        return self.feed(
            TaskRefused(at=self.now, task_no=self.no(name), error_code=error_code, error_message="no such variable")
        )

    def reuse(self, name: str, code: int | None = 0) -> list[Command]:
        """An offered task takes the result of an earlier run."""
        self.offered.pop(name, None)
        source = ReusedFrom(job_id=JobId("job-0"), task_type=name, attempt=3)
        return self.feed(
            TaskReused(at=self.now, task_no=self.no(name), source=source, exit_code=code, outputs={"from": "job-0"})
        )

    def except_(self, name: str) -> list[Command]:
        """The ``except`` of an offered task is true."""
        self.offered.pop(name, None)
        return self.feed(TaskExcepted(at=self.now, task_no=self.no(name)))

    def lose(self, name: str, *, counts: bool = True) -> list[Command]:
        """The ant of the current attempt is lost."""
        attempt = self.cell(name).attempt
        return self.feed(AttemptLost(at=self.now, task_no=self.no(name), attempt=attempt, counts=counts))

    def decline(self, name: str, incarnation: Incarnation = ANT) -> list[Command]:
        """An ant declines the current attempt."""
        attempt = self.cell(name).attempt
        return self.feed(
            AttemptDeclined(at=self.now, task_no=self.no(name), attempt=attempt, incarnation=incarnation, reason="busy")
        )

    def wake(self, name: str) -> list[Command]:
        """The timer of a task rings, after its delay has passed."""
        timer = self.timers.pop(name)
        self.wait(timer.delay_s)
        return self.feed(
            DelayElapsed(at=self.now, task_no=timer.task_no, attempt=timer.attempt, job_attempt=timer.job_attempt)
        )

    def cancel(self, reason: str = "cancelled by ann") -> list[Command]:
        """A person cancels."""
        return self.feed(CancelRequested(at=self.now, reason=reason))

    def pause(self) -> list[Command]:
        """A person pauses."""
        return self.feed(PauseRequested(at=self.now))

    def resume(self) -> list[Command]:
        """A person resumes."""
        return self.feed(ResumeRequested(at=self.now))

    def time_out(self) -> list[Command]:
        """The job's timeout is over."""
        return self.feed(JobTimedOut(at=self.now, job_attempt=self.job.attempt))

    def restart(self, mode: RestartMode = RestartMode.FAILED, from_task: str | None = None) -> list[Command]:
        """A person restarts the ended job; the scheduler claims it again and it begins."""
        no = None if from_task is None else self.no(from_task)
        commands = self.feed(RestartRequested(at=self.now, mode=mode, from_task=no))
        self.reload()
        self.job.state = JobState.READY
        self.begin()
        return commands

    def reload(self) -> None:
        """Builds the machine anew from copies of its cells; the books begin anew too."""
        cells = [cell.snapshot() for cell in self.run.tasks]
        self.run = JobRun(self.plan, copy_of(self.job), cells, rng=self._rng)
        self._open_books()

    def crash(self) -> list[Command]:
        """The owner dies; another one recovers the job from its cells."""
        self.reload()
        commands = self.run.recover(self.now)
        self.book(commands)
        return commands

    def play(self, codes: dict[str, int | list[int]] | None = None) -> None:
        """Runs what is offered until the job is over or nothing can go on, oldest offer first.

        Args:
            codes: exit codes by task, a list for one after the other; 0 where none is left.
        """
        left = {name: [code] if isinstance(code, int) else list(code) for name, code in (codes or {}).items()}
        while not self.is_over and (self.offered or self.timers):
            if not self.offered:
                self.wake(next(iter(self.timers)))
                continue
            name = next(iter(self.offered))
            queue = left.get(name)
            self.end(name, queue.pop(0) if queue else 0)


def begun(
    *tasks: TaskDefinition, retry: int | RetryPolicy = 0, fail_fast: bool = False, timeout_s: float = 7200.0
) -> Drill:
    """Returns the drill of a job that has begun."""
    drill = Drill(job(tasks, retry=retry, fail_fast=fail_fast, timeout_s=timeout_s))
    drill.begin()
    return drill


def copy_of(cell: JobCell) -> JobCell:
    """Returns a copy of a job's cell."""
    copy = JobCell(cell.id)
    for field in JobCell.__slots__:
        setattr(copy, field, getattr(cell, field))
    return copy


def fields_of(cell: TaskCell | JobCell) -> dict[str, object]:
    """Returns the values of a cell by name, to compare."""
    return {field: msgspec.to_builtins(getattr(cell, field)) for field in type(cell).__slots__}
