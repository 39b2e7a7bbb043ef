"""Which colonies use an artifact store: each has its mark there, ``colonies/<colony id>``.

A mark is put before anything else and renewed with every sweep; what it says is for people. Nothing is concluded from
its age: a colony counts until a person says that it is gone (``formicary colony forget``).
"""

import socket
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from formicary.artifacts.base import ArtifactMissingError, ArtifactStore

#: What the names of all marks begin with.
ROOT: Final = "colonies/"


class Mark(msgspec.Struct, frozen=True):
    """What a mark says: which machine renewed it, and when, by that machine's clock; None where it says nothing."""

    host: str | None = None
    seen_at: datetime | None = None


class Marked(msgspec.Struct, frozen=True):
    """A colony that uses the store."""

    colony_id: str
    mark: Mark


_decoder = msgspec.json.Decoder(Mark)


def key_of(colony_id: str) -> str:
    """Returns the key of a colony's mark."""
    return ROOT + colony_id


async def put_mark(store: ArtifactStore, colony_id: str, now: datetime) -> None:
    """Says that a colony uses the store.

    Raises:
        ArtifactStoreUnavailableError: that is not known now.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(msgspec.json.encode(Mark(socket.gethostname(), now)))
        file.flush()
        await store.put(key_of(colony_id), Path(file.name))


async def marked(store: ArtifactStore) -> list[Marked]:
    """Returns the colonies that use the store, by their ids.

    Raises:
        ArtifactStoreUnavailableError: it cannot be asked.
    """
    keys = [key async for key in store.list(ROOT)]
    return [Marked(key.removeprefix(ROOT), await _read(store, key)) for key in keys]


async def remove_mark(store: ArtifactStore, colony_id: str) -> None:
    """Says that a colony does not use the store any more.

    Raises:
        ArtifactStoreUnavailableError: it could not be done.
    """
    await store.delete(key_of(colony_id))


async def _read(store: ArtifactStore, key: str) -> Mark:
    try:
        return _decoder.decode(b"".join([chunk async for chunk in store.get(key)]))
    except (ArtifactMissingError, msgspec.DecodeError):
        return Mark()  # those of older versions are empty
