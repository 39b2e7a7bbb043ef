"""An event loop on virtual time that runs many pretended processes, each with its own clock.

Rules:

- Nothing ever blocks: when nothing is ready, time moves to the next timer.
- Every callback belongs to the process in whose context it was scheduled (a context variable), or to the world: the
  network, the servers, the machines. Callbacks of a frozen process wait until it thaws, those of a dead one never run.
- ``time()`` is the clock of the process that asks, fast or slow. Timers of a process are set by its own clock.
- There is one order of events for a given program and seed: no threads, no system clock, no file descriptors.
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from itertools import count
from typing import Any, Final

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
#: Callbacks after which a run is taken for a busy loop.
MAX_CALLBACKS: Final = 3_000_000
#: Rounding must not let a timer fire before its own clock says that it is due.
_ROUNDING_S: Final = 1e-6

_PROCESS: "contextvars.ContextVar[Process]" = contextvars.ContextVar("process")


class Life(Enum):
    """What a process is doing."""

    RUNNING = auto()
    FROZEN = auto()
    DEAD = auto()


class BusyLoopError(Exception):
    """The run does not come to an end."""


class Process:
    """A pretended process: a clock, and the callbacks that wait while it is frozen.

    Args:
        rate: seconds of its clock per second of virtual time.
        boot_s: its boot clock at time 0.
        wall_s: how far its wall clock is ahead.
    """

    def __init__(self, loop: "VirtualLoop", name: str, *, rate: float, boot_s: float, wall_s: float) -> None:
        self.loop = loop
        self.name = name
        self.life = Life.RUNNING
        self._rate = rate
        self._boot_s = boot_s
        self._wall = EPOCH + timedelta(seconds=wall_s)
        self._waiting: list[asyncio.Handle] = []
        self._context = contextvars.Context()
        self._context.run(_PROCESS.set, self)

    def boottime(self) -> float:
        """Returns its boot clock."""
        return self._boot_s + self.loop.now * self._rate

    def wall(self) -> datetime:
        """Returns its wall clock."""
        return self._wall + timedelta(seconds=round(self.loop.now * self._rate, 6))

    def virtual(self, boottime_s: float) -> float:
        """Returns the virtual time at which its boot clock shows a time."""
        return (boottime_s - self._boot_s) / self._rate + _ROUNDING_S

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Starts a task of this process."""
        return self.loop.create_task(work, context=self._context.copy())

    def call(self, callback: Callable[..., object], *args: object) -> None:
        """Has something called in this process, as soon as it runs."""
        self.loop.call_soon(callback, *args, context=self._context.copy())

    def defer(self, handle: asyncio.Handle) -> None:
        """Keeps a callback; those of a dead process are kept for good, so that nothing of it is ever finalized."""
        self._waiting.append(handle)

    def freeze(self) -> None:
        """Stops it, as SIGSTOP does; its clocks run on."""
        self.life = Life.FROZEN

    def thaw(self, *, timers_first: bool) -> None:
        """Lets it go on with everything that came meanwhile."""
        self.life = Life.RUNNING
        waiting, self._waiting = self._waiting, []
        if timers_first:
            waiting.sort(key=lambda handle: not isinstance(handle, asyncio.TimerHandle))
        self.loop.resume(waiting)

    def kill(self) -> None:
        """Ends it, as SIGKILL does."""
        self.life = Life.DEAD

    def unload(self) -> None:
        """Lets what is left of it run into its cancellation, once the run is over."""
        self.thaw(timers_first=False)


class ProcessClock:
    """The ``Clock`` of a process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def now(self) -> datetime:
        """Returns the wall time."""
        return self._process.wall()

    def boottime(self) -> float:
        """Returns the boot time."""
        return self._process.boottime()

    async def sleep(self, delay_s: float) -> None:
        """Waits, by the clock of the process."""
        await asyncio.sleep(delay_s)


class VirtualLoop(asyncio.BaseEventLoop):
    """See the rules above."""

    _ready: "deque[asyncio.Handle]"

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.callbacks = 0
        self._current: Process | None = None
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._world = contextvars.Context()

    @property
    def current(self) -> Process | None:
        """Returns the process whose callback runs, None for the world."""
        return self._current

    def time(self) -> float:
        """Returns the clock of the process that asks."""
        return self.now if self._current is None else self._current.boottime()

    def call_at(  # type: ignore[override]  # as loosely typed as those who call it
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Sets a timer by the clock of the process that asks."""
        due = when if self._current is None else self._current.virtual(when)
        return self._set(due, asyncio.TimerHandle(when, callback, args, self, context))

    def world_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Sets a timer of the world, in virtual time, whoever asks."""
        due = self.now + delay_s
        return self._set(due, asyncio.TimerHandle(due, callback, args, self, self._world))

    def _set(self, due: float, handle: asyncio.TimerHandle) -> asyncio.TimerHandle:
        heapq.heappush(self._timers, (max(due, self.now), next(self._order), handle))
        return handle

    def resume(self, handles: list[asyncio.Handle]) -> None:
        """Has callbacks run that waited for their process."""
        self._ready.extend(handles)

    def run_in_executor(  # type: ignore[override]  # as loosely typed as those who call it
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Calls at once: there are no threads here."""
        done: asyncio.Future[Any] = self.create_future()
        done.set_result(func(*args))
        return done

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                raise BusyLoopError("nothing will ever happen again")
            self.now = timers[0][0]
        while timers and timers[0][0] <= self.now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            self._run_handle(ready.popleft())
        self._current = None
        if self.callbacks > MAX_CALLBACKS:
            raise BusyLoopError(f"{self.callbacks} callbacks within {self.now:.1f} virtual seconds")

    def _run_handle(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        process: Process | None = handle._context.get(_PROCESS)  # type: ignore[attr-defined]  # its context decides
        if process is not None and process.life is not Life.RUNNING:
            process.defer(handle)
            return
        self.callbacks += 1
        self._current = process
        handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leaves it in the heap: it is passed over there."""

    def _process_events(self, event_list: object) -> None:
        """Has no events: there are no file descriptors."""

    def _write_to_self(self) -> None:
        """Needs no waking: nothing ever blocks."""
