"""A strict double: does what its spec says, and raises where the contract is broken.

It passes the suite of the real executors, and it is stricter than they are: a caller that works with it keeps the order
of calls.
"""

import asyncio
from enum import StrEnum

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink, Stream
from executors.ending import Ending, stopped_outcome
from executors.errors import ExecutorError, SpecRefusedError, StartFailedError
from executors.options import ExecutorOptions
from executors.specs import DummySpec


class ContractBrokenError(ExecutorError):
    """The caller broke the order of calls: ``check``, then per attempt ``start``, ``wait``, ``cleanup``."""


class _Phase(StrEnum):
    STARTED = "started"
    CLEANED_UP = "cleaned up"


class _DummyRun:
    """State of one run; ``ending`` is settled by the driver or by ``stop``."""

    def __init__(self, spec: DummySpec) -> None:
        self.spec = spec
        self.phase = _Phase.STARTED
        self.ending = Ending()
        self.stop_reason: Reason | None = None
        self.stop_asked = asyncio.Event()
        self.driver: asyncio.Task[None] | None = None


class DummyExecutor(Executor):
    """Runs nothing: waits, prints and ends as its spec says."""

    methods = ("DUMMY",)
    is_in_process = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._options = options
        self._is_checked = False
        self._is_closed = False
        self._seen: set[tuple[str, str, int]] = set()
        #: Attempts in the order of their start.
        self.started: list[Attempt] = []
        #: Runs that were started and not cleaned up.
        self.live_count = 0

    async def check(self) -> None:
        """Notes that it was called; ``start`` demands it."""
        self._is_checked = True

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Starts an attempt that no one has started before."""
        self._demand(self._is_checked, "start before check")
        self._demand(not self._is_closed, "start after close")
        spec = attempt.spec
        if not isinstance(spec, DummySpec):
            raise SpecRefusedError(f"DUMMY needs a DummySpec, not {type(spec).__name__}")
        key = (attempt.job_id, attempt.task_type, attempt.number)
        self._demand(key not in self._seen, f"attempt {key} started twice")
        self._seen.add(key)
        if spec.fail_start:
            raise StartFailedError("the dummy was told not to start")
        self.started.append(attempt)
        self.live_count += 1
        handle = _DummyRun(spec)
        handle.driver = asyncio.create_task(_drive(handle, sink))
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns what the spec announced, or how it was stopped."""
        handle = self._handle(run)
        self._demand(handle is not None, "wait without start")
        assert handle is not None
        self._demand(handle.phase is _Phase.STARTED, "wait after cleanup")
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Ends the run at once, or after the grace where the spec ignores stops."""
        self._demand(grace_s >= 0, "negative grace")
        self._demand(reason in {Reason.TIMED_OUT, Reason.CANCELLED}, f"stop with reason {reason}")
        handle = self._handle(run)
        if handle is None or handle.ending.is_over:
            return
        handle.stop_reason = handle.stop_reason or reason
        if not handle.spec.ignore_stop:
            handle.stop_asked.set()
        try:
            async with asyncio.timeout(grace_s):
                await handle.ending.over()
        except TimeoutError:
            handle.stop_asked.set()
            await handle.ending.over()

    async def cleanup(self, run: Run) -> None:
        """Ends what still runs."""
        handle = self._handle(run)
        if handle is None or handle.phase is _Phase.CLEANED_UP:
            return
        handle.phase = _Phase.CLEANED_UP
        self.live_count -= 1
        await self.stop(run, 0, Reason.CANCELLED)

    async def close(self) -> None:
        """Demands that every run was cleaned up."""
        self._demand(self._is_closed or self.live_count == 0, f"close with {self.live_count} runs not cleaned up")
        self._is_closed = True

    def _handle(self, run: Run) -> _DummyRun | None:
        if run.handle is None:
            return None
        if not isinstance(run.handle, _DummyRun):
            raise ContractBrokenError("this run belongs to another executor")
        return run.handle

    @staticmethod
    def _demand(is_kept: bool, breach: str) -> None:
        if not is_kept:
            raise ContractBrokenError(breach)


async def _drive(run: _DummyRun, sink: Sink) -> None:
    try:
        for line in run.spec.lines:
            if run.stop_asked.is_set():
                break
            await sink.write(Stream.STDOUT, line.encode() + b"\n")
        if run.spec.duration_s > 0:
            await _sleep_unless_stopped(run)
    except asyncio.CancelledError:
        run.ending.settle(stopped_outcome(run.stop_reason or Reason.CANCELLED))
        raise
    except Exception as exc:  # noqa: BLE001 - carried to whoever waits
        run.ending.fail(exc)
    run.ending.settle(_outcome(run))


async def _sleep_unless_stopped(run: _DummyRun) -> None:
    try:
        async with asyncio.timeout(run.spec.duration_s):
            await run.stop_asked.wait()
    except TimeoutError:
        return


def _outcome(run: _DummyRun) -> Outcome:
    if run.stop_reason is not None:
        return stopped_outcome(run.stop_reason)
    code = run.spec.exit_code
    message = None if code == 0 else f"exit code {code}"
    return Outcome(Reason.EXITED, code, code == 0, dict(run.spec.outputs), message)
