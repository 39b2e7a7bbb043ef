"""One call of a user's function in this process, on its way to a thread and back."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from executors.base import Outcome, Reason, Sink, Stream
from executors.capture import CURRENT, Capture
from executors.ending import Ending, stopped_outcome
from executors.functions import Function
from executors.results import outcome_of_exception, outcome_of_exit, outcome_of_result

_capture_lock = threading.Lock()


class Call:
    """A call and its fate. ``outcome`` is set by the thread that ran it; the rest belongs to the ant's loop."""

    __slots__ = (
        "_turn",
        "args",
        "capture",
        "ending",
        "finisher",
        "function",
        "is_begun",
        "is_dropped",
        "kwargs",
        "loop",
        "outcome",
        "returned",
        "sink",
        "stop_reason",
        "task",
    )

    def __init__(self, function: Function, args: Sequence[Any], kwargs: Mapping[str, Any], sink: Sink) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.sink = sink
        self.loop = asyncio.get_running_loop()
        self.ending = Ending()
        self.capture: Capture | None = None
        self.outcome: Outcome | None = None
        self.stop_reason: Reason | None = None
        #: Settled when the function has returned and its thread is free; may come after the run's own end.
        self.returned: Ending = self.ending
        #: The function was entered (asynchronous ones; set in their thread).
        self.is_begun = False
        #: It was stopped before it began and must not (asynchronous ones; set in their thread).
        self.is_dropped = False
        self._turn = [True]
        self.task: asyncio.Task[None] | None = None
        self.finisher: asyncio.Task[None] | None = None

    def take_turn(self) -> bool:
        """Returns True to the first who asks, in any thread: whoever runs the function, or stops it before that."""
        try:
            return self._turn.pop()
        except IndexError:
            return False

    def print_bytes(self, stream: Stream, data: bytes) -> bool:
        """Takes what the function prints, in any thread; False once the run is over."""
        if self.ending.is_over or self.outcome is not None:
            return False
        if self.capture is None:
            with _capture_lock:
                self.capture = self.capture or Capture(self.loop, self.sink)
        self.capture.write(stream, data)
        return True

    def run(self) -> None:
        """Runs a synchronous function to its end, in a thread and a context of its own."""
        CURRENT.set(self)
        try:
            self.outcome = outcome_of_result(self.function.target(*self.args, **self.kwargs))
        except BaseException as exc:  # noqa: BLE001 - whatever a user's function raises is its task's failure
            self.fail(exc)

    async def run_async(self) -> None:
        """Runs an asynchronous function to its end, as a task of the functions' loop."""
        CURRENT.set(self)
        self.is_begun = True
        try:
            self.outcome = outcome_of_result(await self.function.target(*self.args, **self.kwargs))
        except asyncio.CancelledError as exc:
            self.fail(exc)
            raise
        except BaseException as exc:  # noqa: BLE001 - SystemExit would end the loop that all functions share
            self.fail(exc)

    def fail(self, exc: BaseException) -> None:
        """Turns what the function raised into its outcome."""
        if isinstance(exc, asyncio.CancelledError) and self.stop_reason is not None:
            self.outcome = stopped_outcome(self.stop_reason)
            return
        outcome, text = outcome_of_exit(exc) if isinstance(exc, SystemExit) else outcome_of_exception(exc)
        if text:
            self.print_bytes(Stream.STDERR, text.encode(errors="backslashreplace"))
        self.outcome = outcome

    def finish(self) -> None:
        """Ends the run, in the ant's loop, after its function has returned."""
        if self.ending.is_over:
            self.returned.settle(self.outcome or stopped_outcome(Reason.CANCELLED))
        elif self.capture is None:
            self._settle()
        else:
            self.finisher = asyncio.create_task(self._drain_and_settle(self.capture))

    def abandon(self, message: str) -> None:
        """Ends the run although its function goes on; what it prints from now on is nobody's."""
        if self.finisher is None:
            self.returned = Ending()
        else:
            message = "the function has returned, but its output could not be delivered in time"
        self.ending.settle(stopped_outcome(self.stop_reason or Reason.CANCELLED, message))
        if self.capture is not None:
            self.capture.close()

    async def _drain_and_settle(self, capture: Capture) -> None:
        try:
            await capture.drain()
        except asyncio.CancelledError:
            self.abandon("the ant ended before all output was taken")
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            self.ending.fail(exc)
        self._settle()

    def _settle(self) -> None:
        if self.stop_reason is not None:
            self.ending.settle(stopped_outcome(self.stop_reason))
            return
        assert self.outcome is not None
        self.ending.settle(self.outcome)


class Returns:
    """Brings calls back to the ant's loop, many with one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_return: Callable[[Call], None]) -> None:
        self._loop = loop
        self._on_return = on_return
        self._done: deque[Call] = deque()
        self._is_scheduled = False

    def put(self, call: Call) -> None:
        """Gives back a call, in any thread."""
        self._done.append(call)
        if not self._is_scheduled:
            self._is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the ant's loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False  # before the first look: what is put from now on wakes the loop again
        while self._done:
            self._on_return(self._done.popleft())
