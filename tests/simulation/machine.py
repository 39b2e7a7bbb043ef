"""A machine that runs one ant: its warden, the processes of its tasks, and what becomes of them.

The warden keeps the rules of ``formicary/ant/warden.py``. Tasks are processes of their own: they run on while their ant
is frozen, until they end or somebody kills them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from formicary.ant.assignments import Key
from formicary.ids import Incarnation
from tests.simulation.loop import Life, Process, VirtualLoop

#: How long the ant may take to end what runs in its own process after a lapse, as the real warden has it, in seconds.
PATIENCE_S: Final = 2.0

#: Exit code of a process that was killed.
KILLED: Final = -9


class Witness(Protocol):
    """Who sees what really runs."""

    def work_began(self, ant_id: str, key: Key) -> None:
        """A task's own code runs from now on."""

    def work_ended(self, ant_id: str, key: Key, exit_code: int) -> None:
        """It does not run any more."""


class Work:
    """The process of one attempt. It waits on a pipe before it execs."""

    def __init__(
        self, machine: "Machine", key: Key, shard: int, incarnation: Incarnation, duration_s: float, code: int
    ) -> None:
        self._machine = machine
        self.key = key
        self.shard = shard
        self.incarnation = incarnation
        self._duration_s = duration_s
        self._code = code
        self.exit_code: int | None = None
        self.is_running = False
        #: Called at its end, in the world.
        self.on_exit: Callable[[], None] = lambda: None

    def execute(self) -> None:
        """Opens the pipe: the task's code runs, unless the process is dead."""
        if self.exit_code is None:
            self.is_running = True
            self._machine.witness.work_began(self._machine.ant_id, self.key)
            self._machine.loop.world_later(self._duration_s, self._end, self._code)

    def kill(self) -> None:
        """Ends it at once."""
        self._end(KILLED)

    def _end(self, code: int) -> None:
        if self.exit_code is not None:
            return
        self.exit_code = code
        if self.is_running:
            self.is_running = False
            self._machine.witness.work_ended(self._machine.ant_id, self.key, code)
        self._machine.works.pop(self.key, None)
        self.on_exit()


@dataclass(slots=True)
class Warden:
    """The state of one warden: of one life of the ant's process."""

    ant: Process
    lives: list[Incarnation] = field(default_factory=list)
    leases: dict[int, float] = field(default_factory=dict)
    lapsed: dict[Incarnation, float] = field(default_factory=dict)
    ended: set[Incarnation] = field(default_factory=set)
    obituaries: list[tuple[Incarnation, list[Work]]] = field(default_factory=list)
    guarded: dict[int, Work] = field(default_factory=dict)
    is_told_bye: bool = False
    #: Its lock is free: it is gone.
    is_gone: bool = False


Bury = Callable[[list[tuple[Incarnation, list[Work]]], Callable[[], None]], None]
"""Publishes obituaries, and then calls what is given."""


class Machine:
    """The machine of one ant, with a clock that all its processes share.

    Args:
        on_dead: called when an ant's process is dead and was to live.
    """

    def __init__(self, loop: VirtualLoop, ant_id: str, clock: Process, witness: Witness, bury: Bury) -> None:
        self.loop = loop
        self.ant_id = ant_id
        self.clock = clock
        self.witness = witness
        self.works: dict[Key, Work] = {}
        self.warden: Warden | None = None
        self._bury = bury
        self._pids = 0
        self.on_dead: Callable[[], None] = lambda: None

    def next_pid(self) -> int:
        """Returns a process number that was never used."""
        self._pids += 1
        return self._pids

    def life(self, warden: Warden, incarnation: Incarnation) -> None:
        """Names the incarnation whose work comes next."""
        warden.lives.append(incarnation)
        warden.leases.clear()

    def prolong(self, warden: Warden, incarnation: Incarnation, shard: int, expires_at: float) -> None:
        """Notes until when a lease lasts, and looks at it then."""
        if not self._is_current(warden, incarnation):
            return
        warden.leases[shard] = expires_at
        delay_s = max(0.0, self.clock.virtual(expires_at) - self.loop.now)
        self.loop.world_later(delay_s, self._check, warden)

    def is_guarded(self, warden: Warden, pid: int, work: Work) -> bool:
        """Promises to kill a process, where the lease still holds."""
        if warden.is_gone or not self._is_current(warden, work.incarnation):
            return False
        if warden.leases.get(work.shard, 0.0) <= self.clock.boottime():
            return False
        warden.guarded[pid] = work
        return True

    def _is_current(self, warden: Warden, incarnation: Incarnation) -> bool:
        return bool(warden.lives) and warden.lives[-1] == incarnation and incarnation not in warden.ended

    def _check(self, warden: Warden) -> None:
        now = self.clock.boottime()
        if warden.is_gone or not any(expires_at <= now for expires_at in warden.leases.values()):
            return
        incarnation = warden.lives[-1]
        warden.leases.clear()
        self.tell_lapse(warden, incarnation)
        warden.lapsed[incarnation] = now + PATIENCE_S
        self.loop.world_later(PATIENCE_S, self._lose_patience, warden, incarnation)
        self.end(warden, incarnation)

    def tell_lapse(self, warden: Warden, incarnation: Incarnation) -> None:
        """Says that a lease ended; set by the ant's side."""

    def end(self, warden: Warden, incarnation: Incarnation) -> None:
        """Kills the work of an incarnation and remembers it for the obituary."""
        warden.ended.add(incarnation)
        work = [item for item in warden.guarded.values() if item.incarnation == incarnation]
        self.kill_all(warden, incarnation)
        warden.obituaries.append((incarnation, work))

    def kill_all(self, warden: Warden, incarnation: Incarnation | None) -> None:
        """Kills the work of one incarnation, or of all."""
        for work in [work for work in self.works.values() if incarnation in (None, work.incarnation)]:
            work.kill()
        warden.guarded = {pid: work for pid, work in warden.guarded.items() if work.exit_code is None}

    def over(self, warden: Warden, incarnation: Incarnation) -> None:
        """Hears that nothing of a lapsed incarnation runs in the ant's process."""
        warden.lapsed.pop(incarnation, None)
        if incarnation in warden.ended and warden.lives[-1] == incarnation:
            warden.leases.clear()

    def _lose_patience(self, warden: Warden, incarnation: Incarnation) -> None:
        if incarnation in warden.lapsed and not warden.is_gone:
            self.kill_ant(warden.ant)

    def kill_ant(self, ant: Process) -> None:
        """Kills the ant's process alone; its warden sees to the rest."""
        if ant.life is Life.DEAD:
            return
        ant.kill()
        self.on_dead()
        if self.warden is not None and self.warden.ant is ant and not self.warden.is_gone:
            self.loop.world_later(0.02, self._ant_died, self.warden)

    def _ant_died(self, warden: Warden) -> None:
        if warden.is_gone or warden.is_told_bye:
            return
        work = list(warden.guarded.values())
        self.kill_all(warden, None)
        if warden.lives:
            warden.obituaries.append((warden.lives[-1], work))

        def gone() -> None:
            warden.is_gone = True

        self._bury(warden.obituaries, gone)

    def bye(self, warden: Warden) -> None:
        """Sends the warden home."""
        warden.is_told_bye = True
        self.kill_all(warden, None)
        warden.is_gone = True

    def crash(self) -> None:
        """Ends everything at once, as a power failure does: nobody says a word."""
        warden = self.warden
        if warden is not None:
            warden.is_gone = True
            if warden.ant.life is not Life.DEAD:
                warden.ant.kill()
                self.on_dead()
        for work in list(self.works.values()):
            work.kill()
