"""The root of all events."""

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An event; its id (sender and counter), time and schema version travel with the pack that carries it.

    Fields are encoded by position: add new ones at the end, with a default; never reorder.
    """
