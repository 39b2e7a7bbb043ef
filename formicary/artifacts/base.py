"""The contract of an artifact store. Every backend passes the suite in ``tests/conformance/artifacts``."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import NamedTuple


class ArtifactError(Exception):
    """Root of the artifact stores' errors."""


class ArtifactMissingError(ArtifactError):
    """There is nothing under this key."""


class ArtifactCorruptError(ArtifactError):
    """The bytes do not have the sha256 that was asked for; nothing of them may be used."""


class ArtifactStoreUnavailableError(ArtifactError):
    """The store cannot take or give bytes now: unreachable, full, forbidden. The text says which."""


class ArtifactStoreAwayError(ArtifactStoreUnavailableError):
    """The store does not answer, or is too busy: the same may succeed later, with nothing changed."""


class Stored(NamedTuple):
    """What ``put`` made: the content's digest (hex) and size."""

    sha256: str
    size_bytes: int


class SignedPut(NamedTuple):
    """Where anyone can PUT a content for a while, and the headers that have to go with it."""

    url: str
    headers: dict[str, str]


class ArtifactStore(ABC):
    """Files under keys like ``blobs/<aa>/<sha256>/<who stored it>``.

    A key is visible only when its content is whole; putting again replaces it in one step.
    """

    @property
    def checks_uploads(self) -> bool:
        """Whether there are URLs, and those for uploads take no other content than the one they were signed for."""
        return False

    @abstractmethod
    async def open(self) -> None:
        """Makes the store usable.

        Raises:
            ArtifactStoreUnavailableError: it is not.
        """

    @abstractmethod
    async def close(self) -> None:
        """Lets go of connections. Safe twice and before ``open``."""

    @abstractmethod
    async def put(self, key: str, source: Path) -> Stored:
        """Stores a file, streaming with bounded memory.

        Raises:
            ArtifactStoreUnavailableError: nothing is left under the key that was not there before.
        """

    @abstractmethod
    def get(self, key: str, sha256: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the content in chunks of at most 1 MiB; raises at the end where the digest differs.

        Raises:
            ArtifactMissingError: nothing under this key.
            ArtifactCorruptError: the digest differs.
        """

    @abstractmethod
    def get_range(self, key: str, start: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yields exactly the bytes from ``start`` on, in chunks of at most 1 MiB; nothing where none are wanted.

        No digest is looked at: the bytes must be such that their reader can tell damage.

        Raises:
            ArtifactMissingError: nothing under this key.
            ArtifactCorruptError: the content ends before them.
        """

    @abstractmethod
    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        """Writes the content to ``target``, which appears only when it is whole and its digest is right."""

    @abstractmethod
    async def copy(self, source: str, target: str) -> None:
        """Puts the content of one key under another one too; its bytes do not leave the store.

        Raises:
            ArtifactMissingError: nothing under ``source``.
            ArtifactStoreUnavailableError: it could not be done; perhaps by ``put``.
        """

    @abstractmethod
    async def presign(self, key: str, expires_s: float) -> str | None:
        """Returns a URL from which anyone can get the content for a while, or None where there is no such thing.

        Nothing is asked of the store: the URL of a missing key answers 404.
        """

    @abstractmethod
    async def presign_put(self, key: str, expires_s: float, sha256: str | None = None) -> SignedPut | None:
        """Returns where anyone can PUT the content for a while, or None where there is no such thing.

        One request with the whole content, its length known; it is visible when all of it came. With a digest, servers
        that know checksums take no other content. ``verify`` says whether it is the right one.
        """

    @abstractmethod
    async def verify(self, key: str, stored: Stored) -> None:
        """Proves that somebody put just this content under the key; read only where the store cannot tell.

        Raises:
            ArtifactMissingError: nothing is there.
            ArtifactCorruptError: something else is there.
        """

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Deletes; nothing happens where there is nothing."""

    @abstractmethod
    def list(self, prefix: str) -> AsyncIterator[str]:
        """Yields the keys that begin with ``prefix``, sorted."""

    @abstractmethod
    async def sweep(self, older_than_s: float) -> int:
        """Deletes what writers left behind that died on the way, and returns how many such things there were.

        Args:
            older_than_s: what was begun later is left alone, since its writer may be alive.
        """
