"""The ant's side of a pretended warden, and the executor whose tasks are processes of a pretended machine."""

import asyncio
from collections.abc import Callable, Mapping

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink
from executors.dummy import DummyExecutor
from executors.ending import Ending, stopped_outcome
from executors.errors import SpecRefusedError
from executors.specs import ShellSpec
from formicary.ant.assignments import Assignment, Key
from formicary.ant.config import AntConfig
from formicary.ant.wardship import AttemptGuard, Wardship
from formicary.ids import Incarnation
from tests.simulation.loop import Life, Process
from tests.simulation.machine import KILLED, Machine, Warden, Work

#: One word over the socket between ant and warden, in seconds.
_WORD_S = 0.0005


class SimWardship(Wardship):
    """Speaks to the warden of a pretended machine."""

    def __init__(
        self, machine: Machine, ant: Process, config: AntConfig, on_lapse: Callable[[Incarnation], None]
    ) -> None:
        super().__init__(config, on_lapse)
        self._machine = machine
        self._ant = ant
        self._warden = Warden(ant)

    async def start(self) -> None:
        """Waits for a former warden, as its lock would have it."""
        while self._machine.warden is not None and not self._machine.warden.is_gone:  # noqa: ASYNC110 - it polls too
            await asyncio.sleep(0.05)
        self._machine.warden = self._warden
        self._machine.tell_lapse = self._tell_lapse  # type: ignore[method-assign]  # the warden's end of the socket

    def _tell_lapse(self, warden: Warden, incarnation: Incarnation) -> None:
        if warden is self._warden:
            self._ant.call(self._on_lapse, incarnation)

    def begin(self, incarnation: Incarnation) -> None:
        """Names the incarnation."""
        self._machine.life(self._warden, incarnation)

    def prolong(self, incarnation: Incarnation, leases: Mapping[int, float]) -> None:
        """Tells until when leases last."""
        for shard, expires_at in leases.items():
            self._machine.prolong(self._warden, incarnation, shard, expires_at)

    async def register(self, pid: int, assignment: Assignment) -> bool:
        """Asks whether a process may exec."""
        work = self._machine.works.get(assignment.key)
        if work is None:
            return False
        await asyncio.sleep(_WORD_S)
        is_guarded = self._machine.is_guarded(self._warden, pid, work)
        await asyncio.sleep(_WORD_S)
        return is_guarded

    def forget(self, pid: int) -> None:
        """Tells that a process is gone."""
        self._warden.guarded.pop(pid, None)

    async def sync(self) -> None:
        """Hears everything that the warden said before."""
        await asyncio.sleep(2 * _WORD_S)

    async def end(self, incarnation: Incarnation) -> None:
        """Has an incarnation's processes killed."""
        await asyncio.sleep(_WORD_S)
        self._machine.end(self._warden, incarnation)

    def over(self, incarnation: Incarnation) -> None:
        """Confirms the end of an incarnation in the ant's own process."""
        self._machine.over(self._warden, incarnation)

    async def close(self) -> None:
        """Sends the warden home."""
        if self._ant.life is Life.RUNNING and self._machine.warden is self._warden:
            self._machine.bye(self._warden)


class ProcessExecutor(Executor):
    """Runs each attempt as a process of the machine: its script says for how long and with which exit code it ends."""

    methods = ("SHELL",)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def check(self) -> None:
        """Needs nothing."""

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Has a process wait on its pipe, registers it, and lets it exec."""
        spec, guard = attempt.spec, attempt.guard
        if not isinstance(spec, ShellSpec) or not isinstance(guard, AttemptGuard):
            raise SpecRefusedError("it needs a script, and an ant of its own")
        duration, code = spec.script[0].split()
        assignment = guard._assignment
        machine = self._machine
        work = Work(machine, assignment.key, assignment.shard, assignment.incarnation, float(duration), int(code))
        machine.works[work.key] = work
        ending = Ending()
        run = Run(attempt, sink, _Handle(work, ending))
        work.on_exit = lambda: ending.settle(_outcome(run.handle))
        pid = machine.next_pid()
        try:
            await guard.register(pid)
        except BaseException:
            work.kill()
            raise
        work.execute()
        return run

    async def wait(self, run: Run) -> Outcome:
        """Waits for the process."""
        handle: _Handle = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Kills the process after a third of its grace: it obeys, but not at once."""
        handle: _Handle = run.handle
        handle.reason = handle.reason or reason
        if handle.work.exit_code is None:
            await asyncio.sleep(grace_s / 3)
            handle.work.kill()

    async def cleanup(self, run: Run) -> None:
        """Leaves nothing."""
        handle: _Handle = run.handle
        handle.work.kill()


class _Handle:
    __slots__ = ("ending", "reason", "work")

    def __init__(self, work: Work, ending: Ending) -> None:
        self.work = work
        self.ending = ending
        self.reason: Reason | None = None


def _outcome(handle: _Handle) -> Outcome:
    code = handle.work.exit_code
    if handle.reason is not None:
        return stopped_outcome(handle.reason)
    if code == KILLED:
        return Outcome(Reason.SIGNALLED, 137, False, message="killed")
    assert code is not None
    return Outcome(Reason.EXITED, code, code == 0, message=None if code == 0 else f"exit code {code}")


class InlineExecutor(DummyExecutor):
    """The strict dummy, in the ant's own process, seen by a witness."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self._running: dict[Key, Run] = {}

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Starts an attempt."""
        run = await super().start(attempt, sink)
        assert isinstance(attempt.guard, AttemptGuard)
        key = attempt.guard._assignment.key
        self._running[key] = run
        self._machine.witness.work_began(self._machine.ant_id, key)
        run.handle.driver.add_done_callback(lambda _: self._ended(key))
        return run

    async def wait(self, run: Run) -> Outcome:
        """Waits for the end, and notes it before anybody hears of it."""
        try:
            return await super().wait(run)
        finally:
            assert isinstance(run.attempt.guard, AttemptGuard)
            self._ended(run.attempt.guard._assignment.key)

    def _ended(self, key: Key) -> None:
        run = self._running.pop(key, None)
        if run is not None:
            outcome = run.handle.ending._outcome
            code = outcome.exit_code if outcome is not None and outcome.reason is Reason.EXITED else KILLED
            self._machine.witness.work_ended(self._machine.ant_id, key, code)

    def die(self) -> None:
        """Ends with the process it lives in."""
        for key in list(self._running):
            del self._running[key]
            self._machine.witness.work_ended(self._machine.ant_id, key, KILLED)
