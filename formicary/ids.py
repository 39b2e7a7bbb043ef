"""Identifiers: typed strings, sortable by the time of their creation."""

import os
import time
import zlib
from datetime import datetime
from typing import Final, NewType

JobId = NewType("JobId", str)
"""A UUID of version 7 in its canonical form."""
AntId = NewType("AntId", str)
"""Stable name of an ant; no ``@`` in it."""
Incarnation = NewType("Incarnation", str)
"""One life of an ant: ``<ant id>@<random>``, and ``+<place>`` where it has one. New at each start and lost lease."""
QueenId = NewType("QueenId", str)
"""Stable name of a queen."""

#: Of a colony whose database the program makes.
SHARD_COUNT: Final = 16


def new_uuid7() -> str:
    """Returns a fresh UUID version 7 (RFC 9562): 48 bits of milliseconds, then 74 random bits."""
    value = int.from_bytes(os.urandom(10), "big")
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & 0xFFFFFFFFFFFF) << 80 | value
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_job_id() -> JobId:
    """Returns the id of a new job."""
    return JobId(new_uuid7())


def least_id(at: datetime) -> JobId:
    """Returns the least id of a job submitted then: ids begin with the time."""
    digits = f"{int(at.timestamp() * 1000):012x}"
    return JobId(f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000")


def new_incarnation(ant_id: AntId) -> Incarnation:
    """Returns a fresh incarnation of an ant."""
    return Incarnation(f"{ant_id}@{os.urandom(5).hex()}")


def in_place(incarnation: Incarnation, place: str) -> Incarnation:
    """Returns the incarnation of an ant that runs tasks of some methods in a place (``Executor.place``)."""
    return Incarnation(f"{incarnation}+{place}") if place else incarnation


def place_of(incarnation: Incarnation) -> str:
    """Returns the place of an ant's life; empty where it has none."""
    return incarnation.partition("+")[2]


def only_place(incarnation: Incarnation | None) -> Incarnation | None:
    """Returns what of an incarnation has to be remembered once its attempt is over: no ant, but the place."""
    place = "" if incarnation is None else place_of(incarnation)
    return in_place(Incarnation("@"), place) if place else None


def without_place(incarnation: Incarnation) -> Incarnation:
    """Returns what of an incarnation says which ant ran an attempt, and binds nobody to its place."""
    return Incarnation(incarnation.partition("+")[0])


def ant_of(incarnation: Incarnation) -> AntId:
    """Returns the id of the ant whose life ``incarnation`` is; empty where only a place is known."""
    return AntId(incarnation.rpartition("@")[0])


def shard_of(job_id: JobId, shard_count: int) -> int:
    """Returns the shard that a job belongs to; the same on every machine and in every version."""
    return zlib.crc32(job_id.encode()) % shard_count
