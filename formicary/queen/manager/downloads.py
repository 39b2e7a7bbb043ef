"""The bytes of artifacts."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from formicary.artifacts.base import ArtifactCorruptError, ArtifactMissingError, ArtifactStoreUnavailableError
from formicary.artifacts.blobs import Blobs
from formicary.errors import FormicaryError, NotFoundError, UnavailableError
from formicary.model.jobs import ArtifactRef

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
