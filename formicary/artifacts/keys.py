"""Keys of artifacts: relative POSIX paths that can only point into the store."""

from typing import Final

from formicary.artifacts.base import ArtifactError

#: S3 allows 1,024 bytes; a file system 255 a component.
_KEY_LIMIT_BYTES: Final = 900
_PART_LIMIT_BYTES: Final = 255
#: A component that begins so is the store's own (files that are being written).
RESERVED_PREFIX: Final = ".formicary-"


class BadKeyError(ArtifactError):
    """A key that no store takes."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"artifact key {key!r} {reason}")
        self.key = key


def check_key(key: str) -> tuple[str, ...]:
    """Returns the components of a key.

    Raises:
        BadKeyError: it is empty, absolute, too long, or has a component that is empty, ``.`` or ``..``, a backslash,
            a NUL or a lone surrogate.
    """
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise BadKeyError(key, "is not valid Unicode") from None
    if not key or size_bytes > _KEY_LIMIT_BYTES:
        raise BadKeyError(key, f"must have 1 to {_KEY_LIMIT_BYTES} bytes")
    if "\0" in key or "\\" in key:
        raise BadKeyError(key, "must not contain NUL or a backslash")
    parts = tuple(key.split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise BadKeyError(key, "must be a relative path without '.', '..' and empty parts")
    if any(len(part.encode()) > _PART_LIMIT_BYTES or part.startswith(RESERVED_PREFIX) for part in parts):
        raise BadKeyError(
            key, f"has a part of more than {_PART_LIMIT_BYTES} bytes or that begins with {RESERVED_PREFIX}"
        )
    return parts
