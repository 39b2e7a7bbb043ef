"""Random jobs under random events, with duplicates, late answers and crashes: what must hold of every one of them.

The walker plays an owner who stores only what is marked as changed, and an unreliable colony. At random points a *twin*
is recovered from the stored cells; from then on it is fed the same events and must do the same.
"""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from formicary.model.definition import JobDefinition, RetryPolicy, TaskDefinition
from formicary.model.states import TERMINAL_JOB_STATES, TERMINAL_TASK_STATES, JobState, TaskState
from formicary.states.cells import TaskCell
from formicary.states.errors import RefusedError
from formicary.states.graph import is_special
from formicary.states.inputs import (
    AttemptDeclined,
    AttemptFinished,
    AttemptLost,
    CancelRequested,
    DelayElapsed,
    Input,
    JobTimedOut,
    PauseRequested,
    RestartMode,
    RestartRequested,
    ResumeRequested,
    TaskExcepted,
    TaskRefused,
)
from formicary.states.run import JobRun
from formicary.testing.drill import ANT, Drill, copy_of, fields_of, job, task

SPECIALS = ("FATAL", "FAILED", "COMPLETED", "RESTART_TASK", "RESTART_JOB", "PAUSE_JOB", "EXECUTING", "ERR_MINE")


#: What comes exactly once: people's commands are rows, and the owner answers its own offers.
UNREPEATED = (PauseRequested, ResumeRequested, CancelRequested, TaskExcepted, TaskRefused)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    return RetryPolicy(limit=draw(st.integers(0, 2)), delay_s=draw(st.sampled_from([0.0, 5.0])))


@st.composite
def definitions(draw: st.DrawFn) -> JobDefinition:
    names = [f"t{no}" for no in range(draw(st.integers(1, 7)))]
    is_last = [draw(st.integers(0, 5)) == 0 for _ in names]
    tasks: list[TaskDefinition] = []
    for no, name in enumerate(names):
        earlier = [other for other, last in zip(names[:no], is_last[:no], strict=True) if not last]
        later = names[no + 1 :]
        some_later = st.lists(st.sampled_from(later), max_size=2, unique=True) if later else st.just([])
        target = st.sampled_from([*SPECIALS, *later])
        keys = st.sampled_from(["0", "1", "2"] if is_last[no] else ["0", "1", "2", "COMPLETED", "FAILED"])
        codes = draw(st.dictionaries(keys, target, max_size=2))
        on_completed, on_failed = draw(some_later), draw(some_later)
        tasks.append(
            task(
                name,
                after=draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else (),
                on_completed=() if "COMPLETED" in codes else on_completed,
                on_failed=() if "FAILED" in codes else on_failed,
                codes=codes,
                retry=draw(policies()),
                allow_failure=draw(st.booleans()),
                always_run=is_last[no],
            )
        )
    return job(tasks, retry=draw(policies()), fail_fast=draw(st.booleans()))


class Walker:
    """An owner and a colony that do anything they may, and check everything they can."""

    def __init__(self, definition: JobDefinition, rng: random.Random) -> None:
        self.drill = Drill(definition)
        self.rng = rng
        self.past: list[Input] = []
        self.twin: JobRun | None = None
        self.stored = [cell.snapshot() for cell in self.drill.run.tasks]
        self.stored_job = copy_of(self.drill.job)
        self.ended: dict[int, tuple[TaskState, int]] = {}
        self.dispatches: Counter[tuple[int, int]] = Counter()
        self.free_tries: Counter[tuple[int, int]] = Counter()
        self.archived: set[tuple[int, int]] = set()

    @property
    def run(self) -> JobRun:
        return self.drill.run

    def walk(self, step_count: int, *, is_kind: bool) -> None:
        """Makes random steps; a kind walk has people keep out of it."""
        self.drill.begin()
        self.check()
        for _ in range(step_count):
            if self.run.job.state in TERMINAL_JOB_STATES:
                return
            self.random_step(is_kind=is_kind)
            if self.rng.random() < 0.4:
                self.replace_twin()

    def finish(self) -> None:
        """Answers every attempt, rings every timer and resumes, until the job is over."""
        for _ in range(2000):
            if self.run.job.state in TERMINAL_JOB_STATES:
                return
            if self.run.job.state is JobState.PAUSED:
                self.feed(ResumeRequested(at=self.drill.now))
            elif flying := self.in_flight():
                self.answer(self.rng.choice(flying))
            elif self.drill.offered:
                self.dispatch(next(iter(self.drill.offered)))
            else:
                self.ring()
        raise AssertionError(f"the job does not end: {self.drill.states}, {self.run.job.state}")

    def random_step(self, *, is_kind: bool) -> None:
        drill, draw = self.drill, self.rng.random()
        flying = self.in_flight()
        if draw < 0.15 and self.past:
            self.feed(self.rng.choice(self.past), is_replay=True)
        elif draw < 0.25 and not is_kind:
            self.person()
        elif draw < 0.6 and drill.offered:
            self.dispatch(self.rng.choice(list(drill.offered)))
        elif flying:
            self.answer(self.rng.choice(flying))
        elif drill.timers:
            self.ring()
        elif drill.offered:
            self.dispatch(self.rng.choice(list(drill.offered)))

    def in_flight(self) -> list[TaskCell]:
        return [cell for cell in self.run.tasks if cell.state in {TaskState.READY, TaskState.EXECUTING}]

    def person(self) -> None:
        at = self.drill.now
        kinds: list[Input] = [PauseRequested(at=at), ResumeRequested(at=at), CancelRequested(at=at)]
        kinds.append(JobTimedOut(at=at, job_attempt=self.run.job.attempt))
        try:
            self.feed(self.rng.choice(kinds))
        except RefusedError:
            self.check()

    def ring(self) -> None:
        name = self.rng.choice(list(self.drill.timers))
        timer = self.drill.timers.pop(name)
        self.drill.wait(timer.delay_s)
        self.feed(
            DelayElapsed(at=self.drill.now, task_no=timer.task_no, attempt=timer.attempt, job_attempt=timer.job_attempt)
        )

    def dispatch(self, name: str) -> None:
        draw, no, at = self.rng.random(), self.drill.no(name), self.drill.now
        self.check_may_run(no)
        if draw < 0.1:
            self.drill.offered.pop(name)
            self.feed(TaskExcepted(at=at, task_no=no))
            return
        if draw < 0.15:
            self.drill.offered.pop(name)
            self.feed(TaskRefused(at=at, task_no=no, error_code="ERR_TEMPLATE", error_message="bad"))
            return
        self.dispatches[no, self.run.job.attempt] += 1
        before = self.run.tasks[no].attempt
        self.drill.dispatch(name)
        assert self.run.tasks[no].attempt == before + 1
        self.feed_twin()
        self.check()

    def answer(self, cell: TaskCell) -> None:
        draw, at, no, attempt = self.rng.random(), self.drill.now, cell.no, cell.attempt
        name = self.drill.names[no]
        if draw < 0.1:
            self.free_tries[no, self.run.job.attempt] += 1
            self.feed(AttemptDeclined(at=at, task_no=no, attempt=attempt, incarnation=ANT, reason="busy"))
        elif draw < 0.2:
            counts = self.rng.random() < 0.5
            self.free_tries[no, self.run.job.attempt] += 1
            self.feed(AttemptLost(at=at, task_no=no, attempt=attempt, counts=counts))
        elif (name, attempt) in self.drill.stops and draw < 0.8:
            self.feed(self.drill.finished(name, 143, "cancelled"))
        else:
            reason = self.rng.choice(["exited"] * 8 + ["timed_out", "signalled", "error"])
            end = self.drill.finished(name, self.rng.choice([0, 0, 0, 1, 2]), reason)
            self.free_tries[no, self.run.job.attempt] += self.is_pausing(end)
            self.feed(end)

    def is_pausing(self, end: AttemptFinished) -> bool:
        codes = self.drill.plan.tasks[end.task_no].on_exit_code
        return "PAUSE_JOB" in codes.values()

    def feed(self, event: Input, *, is_replay: bool = False) -> None:
        if is_replay and isinstance(
            event, PauseRequested | ResumeRequested | CancelRequested | TaskExcepted | TaskRefused
        ):
            return
        self.drill.feed(event)
        if not is_replay:
            self.past.append(event)
        self.feed_twin()
        self.check()

    def feed_twin(self) -> None:
        if self.twin is not None and self.drill.last is not None:
            self.twin.step(self.drill.last)

    def replace_twin(self) -> None:
        """Recovers a twin from what was stored, unless a timer is due and silent: the twin would not wait for it."""
        if any(cell.not_before is not None and cell.not_before <= self.drill.now for cell in self.run.tasks):
            return
        twin = JobRun(
            self.drill.plan, copy_of(self.stored_job), [cell.snapshot() for cell in self.stored], rng=random.Random(0)
        )
        twin.recover(self.drill.now)
        assert not twin.changed_tasks
        assert not twin.archived
        self.twin = twin
        self.compare_twin()

    def check(self) -> None:
        self.store()
        self.check_ended()
        self.check_limits()
        if self.twin is not None:
            self.compare_twin()
        if self.run.job.state in TERMINAL_JOB_STATES:
            self.check_end()

    def store(self) -> None:
        """Keeps what is marked, as an owner would, and demands that nothing else changed."""
        run = self.run
        for no in run.changed_tasks:
            self.stored[no] = run.tasks[no].snapshot()
        run.changed_tasks.clear()
        if run.job_changed:
            self.stored_job = copy_of(run.job)
            run.job_changed = False
        for ended in run.archived:
            assert (ended.no, ended.attempt) not in self.archived
            assert ended.state in TERMINAL_TASK_STATES
            self.archived.add((ended.no, ended.attempt))
        run.archived.clear()
        assert fields_of(self.stored_job) == fields_of(run.job)
        for kept, cell in zip(self.stored, run.tasks, strict=True):
            assert known(kept) == known(cell)

    def check_ended(self) -> None:
        """Ended tasks stay as they are within a job attempt."""
        attempt = self.run.job.attempt
        for cell in self.run.tasks:
            state, since = self.ended.get(cell.no, (cell.state, attempt))
            if since == attempt:
                assert cell.state is state
            if cell.state in TERMINAL_TASK_STATES:
                self.ended[cell.no] = (cell.state, attempt)
            else:
                self.ended.pop(cell.no, None)

    def check_limits(self) -> None:
        run = self.run
        assert run.job.retries_used <= run.plan.definition.retry.limit
        for cell in run.tasks:
            limit = run.plan.tasks[cell.no].retry.limit
            assert cell.retries_used <= limit
            assert cell.polls_used <= limit
            assert cell.ants_lost <= 3
            key = (cell.no, run.job.attempt)
            if cell.job_attempt == run.job.attempt:
                assert self.dispatches[key] <= 1 + cell.retries_used + cell.polls_used + self.free_tries[key]

    def check_may_run(self, no: int) -> None:
        run, plan = self.run, self.run.plan
        definition = plan.tasks[no]
        if definition.always_run:
            assert all(cell.state in TERMINAL_TASK_STATES for cell in run.tasks if not plan.is_always_run[cell.no])
            assert all(run.tasks[other].state in TERMINAL_TASK_STATES for other in plan.always_run if other < no)
            return
        for source in range(plan.size):
            if no in plan.targets[source]:
                assert run.tasks[source].state in TERMINAL_TASK_STATES
        for name in definition.dependencies:
            assert is_usable(run.tasks[plan.numbers[name]], plan.tasks[plan.numbers[name]], definition.task_type)

    def compare_twin(self) -> None:
        twin, run = self.twin, self.run
        assert twin is not None
        assert fields_of(twin.job) == fields_of(run.job)
        for mine, other in zip(run.tasks, twin.tasks, strict=True):
            assert known(mine) == known(other)
            assert run.is_waiting(mine.no) == twin.is_waiting(mine.no)
        if run.job.state in {JobState.EXECUTING, JobState.PAUSED}:
            assert (run.open_count, run.in_flight_count) == (twin.open_count, twin.in_flight_count)

    def check_end(self) -> None:
        run = self.run
        assert all(cell.state in TERMINAL_TASK_STATES for cell in run.tasks)
        assert self.drill.is_over
        failed = [
            cell for cell in run.tasks if cell.state is TaskState.FAILED and not run.plan.tasks[cell.no].allow_failure
        ]
        if run.job.state is JobState.COMPLETED:
            assert not failed
            assert run.job.error_code is None
        else:
            assert run.job.error_code
            assert run.job.error_message
        if run.job.state is JobState.FAILED and run.job.error_code not in {"ERR_JOB_TIMEOUT", "ERR_FATAL"}:
            assert failed
        for cell in run.tasks:
            attempts = {attempt for no, attempt in self.archived if no == cell.no}
            assert attempts | {cell.attempt} >= set(range(1, cell.attempt + 1))


def known(cell: TaskCell) -> dict[str, object]:
    """The fields that a restart needs; a delay that is over may stay in the row until the dispatch."""
    return {name: value for name, value in fields_of(cell).items() if name != "not_before"}


def is_usable(source: TaskCell, definition: TaskDefinition, target: str) -> bool:
    """Says whether the data edge from an ended task to ``target`` is not refused."""
    if source.state is TaskState.FAILED:
        handlers = {*definition.on_failed, definition.on_exit_code.get("FAILED")}
        return (definition.allow_failure and source.error_code != "ERR_FATAL") or target in handlers
    chosen = definition.on_exit_code.get(str(source.exit_code), "FATAL")
    if source.state is TaskState.COMPLETED and source.exit_code and not is_special(chosen):
        return chosen == target
    return source.state is not TaskState.CANCELLED


SETTINGS = settings(max_examples=200)


@SETTINGS
@given(definitions(), st.integers(0, 2**32))
def test_every_job_ends_when_every_attempt_gets_an_answer(definition: JobDefinition, seed: int) -> None:
    walker = Walker(definition, random.Random(seed))
    walker.walk(60, is_kind=True)
    walker.finish()


@SETTINGS
@given(definitions(), st.integers(0, 2**32))
def test_every_job_ends_whatever_people_do(definition: JobDefinition, seed: int) -> None:
    walker = Walker(definition, random.Random(seed))
    walker.walk(60, is_kind=False)
    walker.finish()


@SETTINGS
@given(definitions(), st.integers(0, 2**32), st.sampled_from(RestartMode), st.booleans())
def test_a_restarted_job_ends_too_and_nothing_of_its_past_matters(
    definition: JobDefinition, seed: int, mode: RestartMode, is_from_task: bool
) -> None:
    walker = Walker(definition, random.Random(seed))
    walker.walk(30, is_kind=False)
    walker.finish()
    past, attempts = walker.past, [cell.attempt for cell in walker.run.tasks]
    walker.feed(RestartRequested(at=walker.drill.now, mode=mode, from_task=0 if is_from_task else None), is_replay=True)
    assert [cell.attempt for cell in walker.run.tasks] == attempts
    walker.twin = None
    walker.drill.reload()
    walker.run.job.state = JobState.READY
    walker.past = past
    walker.walk(30, is_kind=False)
    walker.finish()
