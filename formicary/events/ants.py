"""Events of ants' lives: broadcast between ants, their wardens and queens."""

from datetime import datetime

import msgspec

from formicary.events.base import Event
from formicary.ids import AntId, Incarnation, JobId, QueenId


class Held(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that an ant holds: accepted, and its result not yet confirmed by the broker."""

    shard: int
    job_id: JobId
    task_no: int
    attempt: int


class WorkerOffer(msgspec.Struct, frozen=True, array_like=True):
    """What remote workers that are connected to an ant take: tasks of these methods that ask for no other tags."""

    methods: tuple[str, ...]
    tags: tuple[str, ...] = ()


class AntRegistered(Event, frozen=True, kw_only=True, array_like=True, tag="AntRegistered"):
    """Ant -> queens: a new incarnation serves; its inbox position was fixed before. Sent again when ``workers`` change.

    ``version`` counts these changes: of two registrations of one incarnation the higher holds.
    ``former`` are incarnations of ants that died under this id before: nothing of them lives, as its warden made sure.
    """

    ant_id: AntId
    incarnation: Incarnation
    inbox_topic: str
    inbox_key: str
    methods: tuple[str, ...]
    in_process_methods: tuple[str, ...]
    tags: tuple[str, ...]
    groups: tuple[str, ...]
    slots: int
    prefetch: int
    process: str
    sent_at: datetime
    former: tuple[Incarnation, ...] = ()
    workers: tuple[WorkerOffer, ...] = ()
    version: int = 0


class AntHeartbeat(Event, frozen=True, kw_only=True, array_like=True, tag="AntHeartbeat"):
    """Ant -> queens, a third of its lease apart at most. ``epochs``: the newest epoch seen, per shard.

    ``version`` is that of its newest registration, by which a queen notices that it missed one.
    """

    ant_id: AntId
    incarnation: Incarnation
    sequence: int
    slots_free: int
    is_draining: bool
    held: tuple[Held, ...]
    epochs: dict[int, int]
    sent_at: datetime
    version: int = 0


class AntLeft(Event, frozen=True, kw_only=True, array_like=True, tag="AntLeft"):
    """Ant or warden -> queens: this incarnation is over; the attempts named were killed or handed back.

    ``unbegun`` are those among them that waited for a slot: their tasks have nothing to do with the end of the ant.
    """

    ant_id: AntId
    incarnation: Incarnation
    attempts: tuple[Held, ...] = ()
    unbegun: tuple[Held, ...] = ()


class HeartbeatsSeen(Event, frozen=True, kw_only=True, array_like=True, tag="HeartbeatsSeen"):
    """Queen -> ants: the newest heartbeat received per incarnation, for the shards (shard -> epoch) it owns now.

    ``lost`` names the incarnations that it counted lost. A queen also sends it at once to ask for registrations
    (``wants_registrations``) when it starts or sees an incarnation it does not know. ``ant_lease_s`` is the life of
    a lease by which it counts ants lost: none that it answered for may last longer.
    """

    queen_id: QueenId
    epochs: dict[int, int]
    sequences: dict[Incarnation, int]
    lost: tuple[Incarnation, ...] = ()
    refused: dict[Incarnation, str] = msgspec.field(default_factory=dict)
    wants_registrations: bool = False
    ant_lease_s: float | None = None
