"""Contents by digest: stored once, claimed, sealed, read from any copy."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from formicary.artifacts.base import ArtifactCorruptError, ArtifactMissingError, ArtifactStoreUnavailableError
from formicary.artifacts.blobs import PREFIX, Blobs, Shelf, folder_of, shelf_of
from formicary.artifacts.local import LocalStore
from formicary.model.holders import Holder

FIRST, SECOND = Holder("job-1", 0, 1), Holder("job-2", 3, 2)


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    await store.open()
    return store


@pytest.fixture
def blobs(store: LocalStore) -> Blobs:
    return Blobs(store)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


SHA256 = hashlib.sha256(b"content").hexdigest()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def read(blobs: Blobs, sha256: str = SHA256) -> bytes:
    return b"".join([chunk async for chunk in blobs.get(sha256)])


async def test_equal_content_is_stored_once_and_claimed_by_the_second(blobs: Blobs, source: Path) -> None:
    assert await blobs.add(source, FIRST) == (SHA256, 7)
    assert await blobs.add(source, SECOND) == (SHA256, 7)
    shelf = await blobs.shelf(SHA256)
    assert len(shelf.copies) == 1
    assert shelf.claims == ("job-2.3.2.claim",)
    assert shelf.holders == {FIRST, SECOND}


async def test_an_empty_file_has_a_copy_and_is_read(blobs: Blobs, source: Path) -> None:
    write(source, b"")
    stored = await blobs.add(source, FIRST)
    assert await read(blobs, stored.sha256) == b""


async def test_a_sealed_copy_is_read_but_not_relied_upon(blobs: Blobs, source: Path, tmp_path: Path) -> None:
    await blobs.add(source, FIRST)
    (sealed,) = (await blobs.shelf(SHA256)).copies
    await blobs.mark((await blobs.shelf(SHA256)).seal_key(sealed))

    assert not await blobs.claim(SHA256, SECOND)
    await blobs.fetch(SHA256, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    await blobs.add(source, SECOND)

    shelf = await blobs.shelf(SHA256)
    assert len(shelf.copies) == 2
    assert len(shelf.open_copies) == 1
    assert shelf.seals == {sealed}


async def test_what_nobody_stored_is_missing(blobs: Blobs, tmp_path: Path) -> None:
    assert not await blobs.claim(SHA256, FIRST)
    for sha256 in (SHA256, "../../../etc/passwd"):
        with pytest.raises(ArtifactMissingError):
            await read(blobs, sha256)
        with pytest.raises(ArtifactMissingError):
            await blobs.fetch(sha256, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_a_copy_with_other_bytes_is_corrupt(blobs: Blobs, store: LocalStore, source: Path) -> None:
    await blobs.add(source, FIRST)
    (copy,) = [key async for key in store.list(PREFIX)]
    write(source, b"changed")
    await store.put(copy, source)
    with pytest.raises(ArtifactCorruptError):
        await read(blobs)


class Vanishing(LocalStore):
    """Deletes a copy between the look of a reader and its opening, as a sweep does that finds another copy."""

    victim: str | None = None

    async def delete_victim(self) -> None:
        if self.victim is not None:
            victim, self.victim = self.victim, None
            await self.delete(victim)

    async def get(self, key, sha256=None):  # type: ignore[no-untyped-def]
        await self.delete_victim()
        async for chunk in super().get(key, sha256):
            yield chunk

    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        await self.delete_victim()
        await super().fetch(key, target, sha256)


async def test_a_reader_takes_another_copy_when_one_is_deleted_under_it(tmp_path: Path, source: Path) -> None:
    store = Vanishing(tmp_path / "store")
    await store.open()
    blobs = Blobs(store)
    for name in ("a.0.1.00", "b.0.1.00", "c.0.1.00"):
        await store.put(folder_of(SHA256) + name, source)

    store.victim = folder_of(SHA256) + "a.0.1.00"
    assert await read(blobs) == b"content"
    store.victim = folder_of(SHA256) + "b.0.1.00"
    await blobs.fetch(SHA256, tmp_path / "target")

    assert (await blobs.shelf(SHA256)).copies == ("c.0.1.00",)
    assert (tmp_path / "target").read_bytes() == b"content"


def test_names_that_are_none_of_a_shelf_are_left_alone() -> None:
    shelf = shelf_of(SHA256, ["README", "a.0.1", "a.0.1.ff", "a.0.1.ff.sealed", "a.b.claim", "b.2.3.claim"])
    assert shelf == Shelf(SHA256, ("a.0.1.ff",), frozenset({"a.0.1.ff"}), ("b.2.3.claim",))
    assert shelf.holders == {Holder("a", 0, 1), Holder("b", 2, 3)}


async def test_what_is_no_regular_file_is_refused_at_once(blobs: Blobs, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    os.mkfifo(tmp_path / "pipe")  # opening it for reading would wait for a writer
    for path in (tmp_path / "link", tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "missing"):
        with pytest.raises(ArtifactStoreUnavailableError):
            async with asyncio.timeout(40):
                await blobs.add(path, FIRST)
    assert [key async for key in blobs.store.list("")] == []
