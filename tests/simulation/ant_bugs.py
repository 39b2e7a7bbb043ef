"""Bugs to plant in ants and wardens (``bugs.py`` has those of queens and stores)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from formicary.ant.acceptance import Acceptance
from formicary.ant.ant import Ant
from formicary.ant.leases import Leases
from formicary.events.tasks import DeclineReason, TaskDispatched
from formicary.ids import Incarnation
from tests.simulation.hosts import ANT_LEASE_S
from tests.simulation.loop import Process
from tests.simulation.machine import Machine, Warden
from tests.simulation.world import Parts

#: What ants may be set to whose queens say less.
LONGER_LEASE_S: Final = 2 * ANT_LEASE_S


class _FromReceipt(Leases):
    def note_answer(
        self, epochs: Mapping[int, int], sequence: int, now: float, told_s: float | None = None
    ) -> dict[int, float]:
        if sequence in self._sent:
            self._sent[sequence] = now
        return super().note_answer(epochs, sequence, now, told_s)


class _Deaf(Leases):
    def note_answer(
        self, epochs: Mapping[int, int], sequence: int, now: float, told_s: float | None = None
    ) -> dict[int, float]:
        return super().note_answer(epochs, sequence, now)


class _TakesOldEpochs(Acceptance):
    def refusal(self, dispatch: TaskDispatched, incarnation: Incarnation, now: float) -> str | None:
        reason = super().refusal(dispatch, incarnation, now)
        return None if reason == DeclineReason.OLD_EPOCH else reason


class _TakesOtherLives(Acceptance):
    def refusal(self, dispatch: TaskDispatched, incarnation: Incarnation, now: float) -> str | None:
        return super().refusal(dispatch, dispatch.incarnation, now)


class _ForgetsCopies(Acceptance):
    def is_copy(self, dispatch: TaskDispatched) -> bool:
        return False


class _IgnoresLeases(Machine):
    def _check(self, warden: Warden) -> None:
        pass


class _BuriesFirst(Machine):
    def kill_all(self, warden: Warden, incarnation: Incarnation | None) -> None:
        self.loop.world_later(3.0, super().kill_all, warden, incarnation)


class _HasAllPatience(Machine):
    def _lose_patience(self, warden: Warden, incarnation: Incarnation) -> None:
        pass


class _SaysNothing(Machine):
    def kill_ant(self, ant: Process) -> None:
        self.crash_quietly(ant)

    def crash_quietly(self, ant: Process) -> None:
        """Kills the ant and leaves its work running, without a word."""
        if self.warden is not None:
            self.warden.is_gone = True
        ant.kill()
        self.on_dead()


def _plant(change: Callable[[Ant], None]) -> Parts:
    """Returns parts with an ant that is changed once it is made."""

    class Planted(Ant):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            change(self)

    return Parts(ant=Planted)


def _lease_from_receipt(ant: Ant) -> None:
    ant._leases.__class__ = _FromReceipt


def _ignore_what_owners_say(ant: Ant) -> None:
    ant._leases.__class__ = _Deaf


def _take_old_epochs(ant: Ant) -> None:
    ant._acceptance.__class__ = _TakesOldEpochs


def _take_other_lives(ant: Ant) -> None:
    ant._acceptance.__class__ = _TakesOtherLives


def _forget_copies(ant: Ant) -> None:
    ant._acceptance.__class__ = _ForgetsCopies


BUGS: Mapping[str, tuple[int, Parts]] = {
    "a lease runs from the receipt of an answer": (5, _plant(_lease_from_receipt)),
    "an ant set to a longer lease ignores what owners say": (
        5,
        replace(_plant(_ignore_what_owners_say), ant_lease_s=LONGER_LEASE_S),
    ),
    "an ant accepts a dispatch of an old epoch": (5, _plant(_take_old_epochs)),
    "an ant accepts a dispatch to another incarnation": (5, _plant(_take_other_lives)),
    "an ant forgets which dispatches it has judged": (5, _plant(_forget_copies)),
    "nothing happens when a lease ends": (6, Parts(machine=_IgnoresLeases)),
    "the obituary is published before the work is dead": (6, Parts(machine=_BuriesFirst)),
    "the warden lets a stopped ant go on": (6, Parts(machine=_HasAllPatience)),
    "nobody kills the work of a dead ant": (6, Parts(machine=_SaysNothing)),
}
