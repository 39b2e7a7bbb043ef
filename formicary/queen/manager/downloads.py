"""The bytes of artifacts."""

from collections.abc import AsyncIterator

import msgspec

from formicary.artifacts.base import ArtifactCorruptError, ArtifactMissingError, ArtifactStoreUnavailableError
from formicary.artifacts.blobs import Blobs
from formicary.errors import FormicaryError, NotFoundError, UnavailableError
from formicary.model.jobs import ArtifactRef


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
    try:
        async for chunk in blobs.get(ref.sha256):
            if held is not None:
                yield held
            held = chunk
    except ArtifactMissingError as error:
        raise NotFoundError(f"the bytes of artifact {ref.name!r} are gone") from error
    except ArtifactStoreUnavailableError as error:
        raise UnavailableError(f"the artifact store is away: {error}") from error
    except ArtifactCorruptError as error:
        raise ArtifactDamagedError(ref.name) from error
    if held is not None:
        yield held
