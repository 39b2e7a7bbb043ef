"""The live ants as one queen sees them: what they offer, how full they are, when they were last heard.

Nothing here is stored: ants register again whenever a queen asks. A lost incarnation stays lost (``protocol.md`` 5):
it is never answered again, only told so.
"""

from collections.abc import Container, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from formicary.events.ants import AntHeartbeat, AntRegistered, Held
from formicary.ids import AntId, Incarnation, JobId, place_of
from formicary.model.jobs import AntView, WorkersView


class Requirement(NamedTuple):
    """What a task needs of an ant: its method, its tags, sorted, and the remote worker that must be connected.

    ``place``: the one that its attempts cannot leave; empty: any.
    """

    method: str
    tags: tuple[str, ...] = ()
    worker: tuple[str, tuple[str, ...]] | None = None
    place: str = ""


#: How long after a decline for lack of room an ant gets no further dispatch.
BUSY_BACKOFF_S = 0.2
#: Lost incarnations that are remembered, and how many of them every answer names. One that was forgotten is a stranger
#: again: its leases ended long ago, so it declines whatever it is sent.
LOST_KEPT = 10_000
LOST_TOLD = 100
#: Lost incarnations of which it is remembered what had not begun: until their attempts are settled.
UNBEGUN_KEPT = 100
#: Requirements whose matching ants are remembered.
_MATCHES_KEPT = 1000


class LiveAnt:
    """One registered incarnation. ``attempts`` are those that this queen knows with it and that have not ended.

    They are a set, not a count: an attempt is added once and taken once, whichever way the queen learns of it.
    ``others`` is how many it held for other queens when it was heard last: seconds ago, so that it says where to go
    first and what to ask back, never that an ant has no room.
    """

    __slots__ = (
        "attempts",
        "backoff_until",
        "epochs",
        "held",
        "is_draining",
        "last_heartbeat_at",
        "numbers",
        "others",
        "received_at",
        "registration",
        "sequence",
    )

    def __init__(self, registration: AntRegistered, received_at: float) -> None:
        self.registration = registration
        self.received_at = received_at
        self.last_heartbeat_at: datetime = registration.sent_at
        self.sequence = 0
        self.attempts: set[tuple[JobId, int, int]] = set()
        self.others = 0
        self.is_draining = False
        self.backoff_until = 0.0
        #: Per shard the epoch and the last number given in it.
        self.numbers: dict[int, tuple[int, int]] = {}
        self.held: frozenset[tuple[JobId, int, int]] = frozenset()
        self.epochs: dict[int, int] = {}

    @property
    def incarnation(self) -> Incarnation:
        """Returns which life of which ant this is."""
        return self.registration.incarnation

    @property
    def in_flight(self) -> int:
        """Returns how many attempts of this queen are with the ant."""
        return len(self.attempts)

    @property
    def taken(self) -> int:
        """Returns how many attempts of all queens are with the ant, as far as this one knows."""
        return len(self.attempts) + self.others

    @property
    def load(self) -> float:
        """Returns the attempts with the ant per slot: above 1 some of them wait there."""
        return (len(self.attempts) + self.others) / self.registration.slots

    def next_number(self, shard: int, epoch: int) -> int:
        """Returns the next running number of dispatches, per shard and epoch, from 1; epochs only rise."""
        newest, number = self.numbers.get(shard, (epoch, 0))
        number = number + 1 if newest == epoch else 1
        self.numbers[shard] = (epoch, number)
        return number

    def capacity(self, method: str) -> int:
        """Returns how many attempts may be with the ant at once: methods that start processes do not queue there."""
        known = self.registration
        return known.slots + (known.prefetch if method in known.in_process_methods else 0)

    def offers(self, requirement: Requirement) -> bool:
        """Says whether the ant has the method, every tag, the place and a worker that is asked for."""
        known = self.registration
        if requirement.method not in known.methods or not set(requirement.tags).issubset(known.tags):
            return False
        if requirement.place and place_of(known.incarnation) != requirement.place:
            return False
        if requirement.worker is None:
            return True
        method, tags = requirement.worker
        return any(method in offer.methods and set(tags).issubset(offer.tags) for offer in known.workers)


class AntRegistry:
    """All incarnations that registered with this queen and are neither lost nor gone."""

    def __init__(self) -> None:
        self._ants: dict[Incarnation, LiveAnt] = {}
        self._matching: dict[Requirement, list[LiveAnt]] = {}
        #: Whether the loss counts, per lost incarnation; what was lost or asked about last is at the end.
        self._lost: dict[Incarnation, bool] = {}
        #: Attempts that had not begun when their ant was lost, as far as ants said so.
        self._unbegun: dict[Incarnation, frozenset[tuple[JobId, int, int]]] = {}

    def __len__(self) -> int:
        return len(self._ants)

    def __iter__(self) -> Iterator[LiveAnt]:
        return iter(list(self._ants.values()))

    def register(self, event: AntRegistered, received_at: float) -> LiveAnt | None:
        """Takes a registration; returns the new ant, or None where it was known already or is lost.

        An older incarnation of the same id is kept beside it until it is lost: by its obituary, or by its silence.
        """
        if self._is_told_again(event.incarnation) or event.incarnation in self._ants:
            return None
        ant = LiveAnt(event, received_at)
        self._ants[event.incarnation] = ant
        self._matching.clear()
        return ant

    def update(self, event: AntRegistered) -> bool:
        """Takes what a known incarnation says of its workers; returns whether that is news."""
        ant = self._ants.get(event.incarnation)
        if ant is None or event.version <= ant.registration.version:
            return False
        ant.registration = event
        self._matching.clear()
        return True

    def holder_of(self, event: AntRegistered) -> LiveAnt | None:
        """Returns a live incarnation of the same ant id in another process, if there is one."""
        for ant in self._ants.values():
            known = ant.registration
            if known.ant_id == event.ant_id and known.process != event.process:
                return ant
        return None

    def heard(self, event: AntHeartbeat, received_at: float, own_shards: Container[int] = ()) -> LiveAnt | None:
        """Takes a heartbeat, unless a newer one came before; returns None where the incarnation is unknown or lost."""
        ant = self._ants.get(event.incarnation)
        if ant is None or event.sequence < ant.sequence:
            self._is_told_again(event.incarnation)
            return ant
        ant.sequence = event.sequence
        ant.received_at = received_at
        ant.last_heartbeat_at = event.sent_at
        ant.is_draining = event.is_draining
        ant.epochs = event.epochs
        ant.held = frozenset(held_key(held) for held in event.held)
        ant.others = sum(held.shard not in own_shards and held_key(held) not in ant.attempts for held in event.held)
        return ant

    def lose(self, incarnation: Incarnation, *, counts: bool = True) -> None:
        """Counts an incarnation lost, for good.

        Args:
            counts: towards ``ERR_ANT_LOST`` of its tasks; not where this queen itself was cut off.
        """
        self._lost[incarnation] = self._lost.get(incarnation, True) and counts
        if len(self._lost) > LOST_KEPT:
            del self._lost[next(iter(self._lost))]
        if self._ants.pop(incarnation, None) is not None:
            self._matching.clear()

    def is_lost(self, incarnation: Incarnation) -> bool:
        """Says whether the incarnation was counted lost."""
        return incarnation in self._lost

    def was_heard_since(self, incarnation: Incarnation, since: float | None) -> bool:
        """Says whether a live ant was heard after ``since`` (None: never); True for one that is not known."""
        ant = self._ants.get(incarnation)
        return ant is None or (since is not None and ant.received_at >= since)

    def note_unbegun(self, incarnation: Incarnation, attempts: Iterable[Held]) -> None:
        """Takes the ant's word that these attempts of a lost incarnation had not begun."""
        if unbegun := frozenset(held_key(held) for held in attempts):
            self._unbegun[incarnation] = unbegun
            if len(self._unbegun) > UNBEGUN_KEPT:
                del self._unbegun[next(iter(self._unbegun))]

    def loss_counts(self, incarnation: Incarnation, attempt: tuple[JobId, int, int]) -> bool:
        """Says whether the loss of this incarnation counts towards ``ERR_ANT_LOST`` of an attempt's task."""
        return self._lost.get(incarnation, True) and attempt not in self._unbegun.get(incarnation, ())

    def get(self, incarnation: Incarnation | None) -> LiveAnt | None:
        """Returns the live ant, if it is one."""
        return self._ants.get(incarnation) if incarnation is not None else None

    def ids(self) -> set[AntId]:
        """Returns the ants of which some incarnation is live."""
        return {ant.registration.ant_id for ant in self._ants.values()}

    def silent_since(self, before: float) -> list[Incarnation]:
        """Returns the incarnations last heard before this boot time."""
        return [ant.incarnation for ant in self._ants.values() if ant.received_at < before]

    def sequences(self) -> dict[Incarnation, int]:
        """Returns the newest heartbeat of every live incarnation."""
        return {incarnation: ant.sequence for incarnation, ant in self._ants.items()}

    def lost(self) -> tuple[Incarnation, ...]:
        """Returns incarnations counted lost: those lost, or heard of, last."""
        return tuple(islice(reversed(self._lost), LOST_TOLD))

    def with_room(self, requirement: Requirement, now: float) -> list[LiveAnt]:
        """Returns the ants that could take one more attempt now."""
        method = requirement[0]
        return [
            ant
            for ant in self._offering(requirement)
            if not ant.is_draining and ant.backoff_until <= now and ant.in_flight < ant.capacity(method)
        ]

    def explain(self, requirement: Requirement) -> str:
        """Says why a task with this requirement waits."""
        ants = [ant for ant in self._offering(requirement) if not ant.is_draining]
        if not ants:
            return self._explain_lack(requirement)
        slots = sum(ant.registration.slots for ant in ants)
        used = sum(min(ant.taken, ant.registration.slots) for ant in ants)
        which = "the only matching ant is" if len(ants) == 1 else f"all {len(ants)} matching ants are"
        return f"{which} full ({used} of {slots} slots)"

    def views(self) -> list[AntView]:
        """Returns the live ants for people, sorted by id."""
        return sorted((_view(ant) for ant in self._ants.values()), key=lambda view: view.id)

    def _explain_lack(self, requirement: Requirement) -> str:
        method, tags, worker, place = requirement
        if place and any(ant.offers(requirement._replace(place="")) for ant in self._ants.values()):
            return f"no live ant offers {method}{_with_tags(tags)} where an earlier attempt of the task ran"
        if worker is None:
            return f"no live ant offers {method}{_with_tags(tags)}"
        ants = [ant for ant in self._offering(Requirement(method, tags)) if not ant.is_draining]
        if not ants:
            return f"no live ant takes workers ({method}{_with_tags(tags)})"
        where = f"ant {ants[0].registration.ant_id}" if len(ants) == 1 else f"any of {len(ants)} ants"
        return f"no worker for {worker[0]}{_with_tags(worker[1])} is connected to {where}"

    def _is_told_again(self, incarnation: Incarnation) -> bool:
        """Has the next answer name an incarnation that is lost and spoke; says whether it is."""
        if incarnation not in self._lost:
            return False
        self._lost[incarnation] = self._lost.pop(incarnation)
        return True

    def _offering(self, requirement: Requirement) -> list[LiveAnt]:
        found = self._matching.get(requirement)
        if found is None:
            if len(self._matching) >= _MATCHES_KEPT:
                self._matching.clear()
            found = [ant for ant in self._ants.values() if ant.offers(requirement)]
            self._matching[requirement] = found
        return found


def held_key(held: Held) -> tuple[JobId, int, int]:
    """Returns the identity of a held attempt."""
    return (held.job_id, held.task_no, held.attempt)


def _with_tags(tags: tuple[str, ...]) -> str:
    return f" with tags [{', '.join(tags)}]" if tags else ""


def _view(ant: LiveAnt) -> AntView:
    known = ant.registration
    return AntView(
        id=AntId(known.ant_id),
        incarnation=known.incarnation,
        methods=known.methods,
        tags=known.tags,
        slots=known.slots,
        running=ant.taken,
        last_heartbeat_at=ant.last_heartbeat_at,
        workers=tuple(WorkersView(offer.methods, offer.tags) for offer in known.workers),
    )
