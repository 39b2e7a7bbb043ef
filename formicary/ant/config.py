"""What an ant is told by whoever starts it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from formicary.errors import InvalidInputError
from formicary.ids import SHARD_COUNT, AntId

#: Prefetch of an ant whose executors run attempts in its own process, at least.
MIN_PREFETCH_IN_PROCESS: Final = 256
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class AntConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one ant.

    ``home`` holds the lock of its warden and the folders of its attempts. ``methods`` None offers all that the
    executors serve. ``survives_process``, ``topics_are_dear`` are the broker's capabilities; without the first, leases
    never lapse. ``broker_url`` is what the warden publishes the obituary to, ``engine_url`` where it ends containers;
    None where the ant runs none. ``is_home_passable``: tasks run as other users, who must be able to reach their
    folders.
    """

    id: AntId
    home: Path
    slots: int = 4
    prefetch: int | None = None
    tags: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    lease_s: float = 60.0
    survives_process: bool = False
    topics_are_dear: bool = False
    shard_count: int = SHARD_COUNT
    broker_url: str | None = None
    engine_url: str | None = None
    log_limit_bytes: int = 64 * 1024 * 1024
    is_home_passable: bool = False
    cache_limit_bytes: int = 5_000_000_000

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidInputError(
                f"ant id {self.id!r}: letters, digits, '.', '_' and '-' only, up to 100, the first a letter or digit"
            )
        if self.slots < 1:
            raise InvalidInputError(f"slots {self.slots}: an ant needs at least 1")
        if self.survives_process and not self.broker_url:
            raise InvalidInputError("an ant on a broker that outlives it needs the broker's URL for its warden")
        if self.lease_s <= 0:
            raise InvalidInputError(f"ant lease {self.lease_s} s: must be above 0")

    @property
    def folder(self) -> Path:
        """Returns where the attempts' folders are made."""
        return self.home / "ants" / self.id / "work"

    @property
    def lock_path(self) -> Path:
        """Returns the file that the warden holds locked."""
        return self.home / "ants" / f"{self.id}.lock"

    def prefetch_for(self, in_process_methods: Iterable[str]) -> int:
        """Returns how many accepted attempts may wait."""
        if self.prefetch is not None:
            return self.prefetch
        floor = MIN_PREFETCH_IN_PROCESS if any(in_process_methods) else 0
        return max(2 * self.slots, floor)
