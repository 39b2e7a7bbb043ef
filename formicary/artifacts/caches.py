"""Where caches lie in an artifact store, and how they are found again.

The name of a stored cache is its whole index entry::

    caches/<group>/<job type>/<key>/<created ms>-<expires ms>-<size>-<sha256>.tar.zst

So one ``put`` stores a cache, and one ``list`` finds the newest of a key, or of all keys that begin alike. There is no
second object that could disagree, and nothing is replaced: a newer archive of the same key stands beside the older one
until that is evicted. Groups, job types and keys are quoted byte by byte, which keeps beginnings: the quoted
beginning of a key is the beginning of the quoted key.
"""

import re
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from formicary.artifacts.base import ArtifactStore

#: What all names of caches begin with.
ROOT: Final = "caches/"
#: Of a quoted key; a file system allows 255.
KEY_LIMIT_BYTES: Final = 240
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
_NAME: Final = re.compile(
    rf"{ROOT}(?P<group>[^/]+)/(?P<job_type>[^/]+)/(?P<key>[^/]+)/"
    r"(?P<created>\d{13})-(?P<expires>\d{1,15})-(?P<size>\d{1,18})-(?P<sha256>[0-9a-f]{64})\.tar\.zst"
)


class CacheKeyError(ValueError):
    """A key that cannot be stored; the text says why."""


class CacheScope(NamedTuple):
    """Whose caches: those of one scope are never seen by another."""

    group: str
    job_type: str

    @property
    def prefix(self) -> str:
        """Returns what the names of its caches begin with."""
        return f"{ROOT}{_quoted(self.group)}/{_quoted(self.job_type)}/"


class CacheEntry(NamedTuple):
    """A stored cache. Times are milliseconds since 1970 by the clock of the ant that stored it; 0: never expires."""

    scope: CacheScope
    key: str
    created_ms: int
    expires_ms: int
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Returns its key in the store."""
        name = f"{self.created_ms:013}-{self.expires_ms}-{self.size_bytes}-{self.sha256}.tar.zst"
        return f"{self.scope.prefix}{quoted_key(self.key)}/{name}"

    def is_live(self, now: datetime) -> bool:
        """Says whether it may still be restored."""
        return not self.expires_ms or self.expires_ms > milliseconds(now)


def new_entry(
    scope: CacheScope, key: str, now: datetime, expires_after_s: float | None, size_bytes: int, sha256: str
) -> CacheEntry:
    """Returns the entry of an archive that is about to be stored.

    Raises:
        CacheKeyError: the key is too long.
    """
    quoted_key(key)
    expires = 0 if expires_after_s is None else milliseconds(now + timedelta(seconds=expires_after_s))
    return CacheEntry(scope, key, milliseconds(now), expires, size_bytes, sha256)


def parse_name(name: str) -> CacheEntry | None:
    """Returns the entry that a name in the store is, None where it is no cache's."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    scope = CacheScope(_unquoted(match["group"]), _unquoted(match["job_type"]))
    numbers = (int(match["created"]), int(match["expires"]), int(match["size"]))
    return CacheEntry(scope, _unquoted(match["key"]), *numbers, match["sha256"])


async def find(store: ArtifactStore, scope: CacheScope, key: str, now: datetime) -> CacheEntry | None:
    """Returns the newest live entry of exactly this key.

    Raises:
        CacheKeyError: the key is too long.
        ArtifactStoreUnavailableError: the store cannot be asked.
    """
    return await _newest(store, f"{scope.prefix}{quoted_key(key)}/", now)


async def find_beginning(store: ArtifactStore, scope: CacheScope, beginning: str, now: datetime) -> CacheEntry | None:
    """Returns the newest live entry whose key begins so.

    Raises:
        ArtifactStoreUnavailableError: the store cannot be asked.
    """
    return await _newest(store, scope.prefix + _quoted(beginning), now)


async def _newest(store: ArtifactStore, prefix: str, now: datetime) -> CacheEntry | None:
    newest: CacheEntry | None = None
    async for name in store.list(prefix):
        entry = parse_name(name)
        if entry is not None and entry.is_live(now) and (newest is None or entry.created_ms > newest.created_ms):
            newest = entry
    return newest


def milliseconds(at: datetime) -> int:
    """Returns a time as milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def quoted_key(key: str) -> str:
    """Returns a key as it stands in names.

    Raises:
        CacheKeyError: it is empty or too long.
    """
    quoted = _quoted(key)
    if not 1 <= len(quoted) <= KEY_LIMIT_BYTES:
        many = "letters, digits and - _ . : count one, other bytes three"
        raise CacheKeyError(f"the key has {len(quoted)} characters, 1 to {KEY_LIMIT_BYTES} are possible ({many})")
    return quoted


def _quoted(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    quoted = "".join(chr(byte) if byte in _PLAIN else f"!{byte:02X}" for byte in data)
    return f"!2E{quoted[1:]}" if quoted.startswith(".") else quoted


def _unquoted(quoted: str) -> str:
    data = re.sub(r"!([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), quoted).encode("latin-1", "replace")
    return data.decode("utf-8", "replace")
