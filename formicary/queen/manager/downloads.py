"""Artifacts of attempts, and their bytes."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import msgspec

from formicary.artifacts.base import ArtifactCorruptError, ArtifactMissingError, ArtifactStoreUnavailableError
from formicary.artifacts.blobs import Blobs
from formicary.clock import time_text
from formicary.errors import ExpiredError, FormicaryError, NotFoundError, UnavailableError
from formicary.model.jobs import ArtifactRef
from formicary.queen.manager.checks import printable

#: How long a URL for others is good, in seconds.
URL_LIFE_S: Final = 300.0


class ArtifactDamagedError(FormicaryError):
    """The stored bytes are not those that the task left; nothing of them may be used."""

    code = "ERR_ARTIFACT"

    def __init__(self, name: str) -> None:
        super().__init__(f"artifact {name!r} was changed in the store: its digest is wrong; run its task again")


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact and its bytes. The last chunk comes only if the digest of the whole is right."""

    ref: ArtifactRef
    chunks: AsyncIterator[bytes]


def select(refs: Iterable[ArtifactRef], name: str, now: datetime, *, has_ended: bool) -> ArtifactRef | None:
    """Returns the artifact of this name, None where there is none.

    Raises:
        ExpiredError: it is not kept any more.
    """
    ref = next((ref for ref in refs if ref.name == name), None)
    if ref is not None and has_expired(ref, now, has_ended=has_ended):
        since = f" at {time_text(ref.expires_at)}" if ref.expires_at is not None else ""
        raise ExpiredError(f"artifact {printable(name)!r} expired{since}; run its task again to have it anew")
    return ref


def has_expired(ref: ArtifactRef, now: datetime, *, has_ended: bool) -> bool:
    """Says whether an artifact is not kept any more; that of a running job is."""
    return ref.is_expired or (has_ended and ref.expires_at is not None and ref.expires_at <= now)


async def chunks_of(blobs: Blobs, ref: ArtifactRef) -> AsyncIterator[bytes]:
    """Yields the bytes of an artifact, the last of them only if the digest of the whole is right.

    Raises:
        NotFoundError: they are gone.
        UnavailableError: the store is away.
        ArtifactDamagedError: they are not what was stored.
    """
    held: bytes | None = None
    with _translated(ref):
        async for chunk in blobs.get(ref.sha256):
            if held is not None:
                yield held
            held = chunk
    if held is not None:
        yield held


async def url_of(blobs: Blobs, ref: ArtifactRef) -> str | None:
    """Returns a URL from which anyone can get an artifact for a while; None where the store has no such thing.

    Raises:
        NotFoundError: its bytes are gone.
        UnavailableError: the store is away.
    """
    with _translated(ref):
        return await blobs.presign(ref.sha256, URL_LIFE_S)


@contextmanager
def _translated(ref: ArtifactRef) -> Iterator[None]:
    try:
        yield
    except ArtifactMissingError as error:
        raise NotFoundError(f"the bytes of artifact {ref.name!r} are gone") from error
    except ArtifactStoreUnavailableError as error:
        raise UnavailableError(f"the artifact store is away: {error}") from error
    except ArtifactCorruptError as error:
        raise ArtifactDamagedError(ref.name) from error
