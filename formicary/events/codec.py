"""Packs: how events travel. One pack is the body of one broker message.

A pack is the msgpack array ``[schema version, sender, first number, sent at, [event, …]]``; an event is the array
``[tag, field, …]``. Rules:

- The id of event ``i`` is ``<sender>-<first number + i>``. A sender is one life of a process, so numbers never repeat.
- Fields are added at the end, with a default: an older reader ignores them, a newer one fills them in. Whatever needs
  more than that raises ``SCHEMA_VERSION``.
- A pack is decoded in one step. Only where that fails is it taken apart, so that the guilty events alone become
  ``Poison`` and the others are handled: a reader never loses a good event to its neighbour.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, get_args

import msgspec

from formicary.errors import DataError
from formicary.events.ants import AntHeartbeat, AntLeft, AntRegistered, HeartbeatsSeen
from formicary.events.base import Event
from formicary.events.jobs import JobCommandIssued, JobLaunched, LeasesReleased
from formicary.events.logs import LogChunk
from formicary.events.tasks import (
    BarrierReached,
    TaskCancelRequested,
    TaskDeclined,
    TaskDispatched,
    TaskFinished,
    TaskRecalled,
    TaskStarted,
)
from formicary.ids import JobId

SCHEMA_VERSION: Final = 1
#: A pack is closed at this size; a single event may exceed it, up to what the broker carries.
PACK_LIMIT_BYTES: Final = 256 * 1024

AnyEvent = (
    AntRegistered
    | AntHeartbeat
    | AntLeft
    | HeartbeatsSeen
    | JobLaunched
    | JobCommandIssued
    | LeasesReleased
    | LogChunk
    | TaskDispatched
    | TaskRecalled
    | TaskCancelRequested
    | TaskDeclined
    | TaskStarted
    | TaskFinished
    | BarrierReached
)

_TAGS: Final = frozenset(event.__struct_config__.tag for event in get_args(AnyEvent))
_encoder = msgspec.msgpack.Encoder()
_pack_decoder = msgspec.msgpack.Decoder(tuple[int, str, int, datetime, tuple[AnyEvent, ...]])
_frame_decoder = msgspec.msgpack.Decoder(tuple[int, str, int, datetime, tuple[msgspec.Raw, ...]])
_event_decoder: msgspec.msgpack.Decoder[AnyEvent] = msgspec.msgpack.Decoder(AnyEvent)

#: What msgspec raises for bytes that are not what was asked for; nesting without end exhausts the stack.
_DECODING_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


class AttemptKey(NamedTuple):
    """The identity of an attempt."""

    job_id: JobId
    task_no: int
    attempt: int


class Poison(NamedTuple):
    """An event, or a whole body, that cannot be decoded. ``event_id`` is empty where not even that is known."""

    raw: bytes
    reason: str
    event_id: str = ""
    tag: str = ""
    #: The attempt it speaks of, where the beginning of the event is readable: that attempt is to be failed.
    attempt: AttemptKey | None = None


class Pack(NamedTuple):
    """A decoded body: what is good, in order, and what is not."""

    sender: str
    first_number: int
    sent_at: datetime | None
    events: tuple[Event, ...]
    poison: tuple[Poison, ...] = ()


class Numbers:
    """The running number of a sender's events; not to be shared between senders."""

    def __init__(self) -> None:
        self._next = 1

    def take(self, count: int) -> int:
        """Returns the first of ``count`` fresh numbers."""
        first = self._next
        self._next += count
        return first


def encode_packs(
    events: Sequence[Event],
    sender: str,
    numbers: Numbers,
    sent_at: datetime,
    limit_bytes: int = PACK_LIMIT_BYTES,
) -> list[bytes]:
    """Returns the events as bodies of at most ``limit_bytes`` each, in order; a larger event has a body of its own.

    Raises:
        DataError: a value has no place on the wire (a lone surrogate, an integer beyond 64 bits, an unknown type).
    """
    if not events:
        return []
    first = numbers.take(len(events))
    try:
        return _encode(events, sender, first, sent_at, limit_bytes)
    except (TypeError, OverflowError, ValueError, RecursionError) as exc:
        raise _guilty(events, exc) from exc


def _encode(events: Sequence[Event], sender: str, first: int, sent_at: datetime, limit_bytes: int) -> list[bytes]:
    body = _encoder.encode((SCHEMA_VERSION, sender, first, sent_at, events))
    if len(body) <= limit_bytes or len(events) == 1:
        return [body]
    # Equal shares by count, then again for the shares that are still too large: events of a batch are alike.
    share = max(1, len(events) // (len(body) // limit_bytes + 1))
    return [
        part
        for start in range(0, len(events), share)
        for part in _encode(events[start : start + share], sender, first + start, sent_at, limit_bytes)
    ]


def _guilty(events: Sequence[Event], cause: Exception) -> DataError:
    for event in events:
        try:
            _encoder.encode(event)
        except (TypeError, OverflowError, ValueError, RecursionError) as exc:
            return DataError(type(event).__name__, f"cannot be sent: {exc}")
    return DataError("events", f"cannot be sent: {cause}")


def decode_pack(body: bytes) -> Pack:
    """Returns the events of a body. Never raises: what cannot be read is ``poison``, with the reason."""
    try:
        version, sender, first, sent_at, events = _pack_decoder.decode(body)
    except _DECODING_ERRORS:
        return _decode_apart(body)
    if version != SCHEMA_VERSION:
        return _of_other_version(body, version, sender, first, sent_at)
    return Pack(sender, first, sent_at, events)


def encode_dead(pack: Pack, poison: Poison) -> bytes:
    """Returns a body that holds the guilty event alone, so that it can be read again by a program that knows it."""
    number = poison.event_id.rpartition("-")[2]
    if not number or pack.sent_at is None:
        return poison.raw
    return _encoder.encode((SCHEMA_VERSION, pack.sender, int(number), pack.sent_at, (msgspec.Raw(poison.raw),)))


def _decode_apart(body: bytes) -> Pack:
    try:
        version, sender, first, sent_at, raws = _frame_decoder.decode(body)
    except _DECODING_ERRORS as exc:
        return Pack("", 0, None, (), (Poison(body, f"not a pack of events: {exc}"),))
    if version != SCHEMA_VERSION:
        return _of_other_version(body, version, sender, first, sent_at)
    events: list[Event] = []
    poison: list[Poison] = []
    for number, raw in enumerate(raws, first):
        try:
            events.append(_event_decoder.decode(raw))
        except _DECODING_ERRORS as exc:
            poison.append(_poison_of(bytes(raw), f"{sender}-{number}", str(exc)))
    return Pack(sender, first, sent_at, tuple(events), tuple(poison))


def _of_other_version(body: bytes, version: int, sender: str, first: int, sent_at: datetime) -> Pack:
    reason = f"schema version {version} is unknown; this program reads version {SCHEMA_VERSION}"
    # No event id: the body stays whole, since the events of another version may not stand alone.
    return Pack(sender, first, sent_at, (), (Poison(body, reason),))


def _poison_of(raw: bytes, event_id: str, error: str) -> Poison:
    try:
        fields: Any = msgspec.msgpack.decode(raw)
    except _DECODING_ERRORS:
        return Poison(raw, f"unreadable event: {error}", event_id)
    match fields:
        case [str(tag), str(job_id), int(task_no), int(attempt), *_] if tag in _TAGS and tag.startswith("Task"):
            return Poison(raw, f"bad {tag}: {error}", event_id, tag, AttemptKey(JobId(job_id), task_no, attempt))
        case [str(tag), *_] if tag not in _TAGS:
            return Poison(raw, f"unknown event {tag!r}: its sender is newer than this program", event_id, tag)
        case [str(tag), *_]:
            return Poison(raw, f"bad {tag}: {error}", event_id, tag)
    return Poison(raw, f"not an event: {error}", event_id)
