"""What every artifact store promises."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from formicary.artifacts.base import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactMissingError,
    ArtifactStore,
    ArtifactStoreUnavailableError,
)

MEBIBYTE = 1024 * 1024


def write(folder: Path, content: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def read(store: ArtifactStore, key: str, sha256: str | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, sha256)])


async def read_range(store: ArtifactStore, key: str, start: int, size_bytes: int) -> bytes:
    return b"".join([chunk async for chunk in store.get_range(key, start, size_bytes)])


@pytest.mark.parametrize("size_bytes", [0, 1, MEBIBYTE, 3 * MEBIBYTE + 7, 16 * MEBIBYTE, 20 * MEBIBYTE + 3])
async def test_what_was_put_comes_back(store: ArtifactStore, work: Path, size_bytes: int) -> None:
    content = bytes(number % 251 for number in range(1024)) * (size_bytes // 1024) + b"x" * (size_bytes % 1024)
    stored = await store.put("job/1/1/data.bin", write(work, content))
    assert stored.size_bytes == len(content)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert await read(store, "job/1/1/data.bin", stored.sha256) == content


async def test_chunks_are_bounded(store: ArtifactStore, work: Path) -> None:
    await store.put("k", write(work, b"x" * (2 * MEBIBYTE + 1)))
    assert all([len(chunk) <= MEBIBYTE async for chunk in store.get("k")])


async def test_putting_again_replaces(store: ArtifactStore, work: Path) -> None:
    await store.put("k", write(work, b"old and longer"))
    await store.put("k", write(work, b"new"))
    assert await read(store, "k") == b"new"


async def test_a_reader_of_the_old_content_is_not_disturbed(store: ArtifactStore, work: Path) -> None:
    old = b"o" * (2 * MEBIBYTE)
    await store.put("k", write(work, old))
    chunks = store.get("k", hashlib.sha256(old).hexdigest())
    first = await anext(chunks)
    await store.put("k", write(work, b"new"))
    assert first + b"".join([chunk async for chunk in chunks]) == old


async def test_nothing_under_a_key_is_missing(store: ArtifactStore, work: Path) -> None:
    await store.put("a/b", write(work, b""))
    for key in ("nothing", "a", "a/c", "a/b/c"):
        with pytest.raises(ArtifactError):
            await read(store, key)
    with pytest.raises(ArtifactMissingError, match="nothing"):
        await read(store, "nothing")
    with pytest.raises(ArtifactMissingError):
        await store.fetch("nothing", work / "target", "0" * 64)
    assert not (work / "target").exists()


@pytest.mark.parametrize(
    ("start", "size_bytes"),
    [
        (0, 1),
        (0, 3 * MEBIBYTE + 7),
        (1, 2 * MEBIBYTE),
        (MEBIBYTE - 1, 2),
        (3 * MEBIBYTE + 6, 1),
        (5, 0),
        (3 * MEBIBYTE + 7, 0),
    ],
)
async def test_a_part_of_a_content_can_be_read(store: ArtifactStore, work: Path, start: int, size_bytes: int) -> None:
    content = bytes(number * 7 % 251 for number in range(3 * MEBIBYTE + 7))
    await store.put("k", write(work, content))
    chunks = [chunk async for chunk in store.get_range("k", start, size_bytes)]
    assert b"".join(chunks) == content[start : start + size_bytes]
    assert all(0 < len(chunk) <= MEBIBYTE for chunk in chunks)


async def test_a_part_that_is_not_all_there_is_corrupt(store: ArtifactStore, work: Path) -> None:
    await store.put("k", write(work, b"0123456789"))
    for start, size_bytes in ((0, 11), (9, 2), (10, 1), (1000, 1)):
        with pytest.raises(ArtifactCorruptError, match=f"k ends before byte {start + size_bytes}"):
            await read_range(store, "k", start, size_bytes)
    for size_bytes in (0, 1):
        with pytest.raises(ArtifactMissingError):
            await read_range(store, "nothing", 0, size_bytes)


async def test_a_wrong_digest_is_corrupt(store: ArtifactStore, work: Path) -> None:
    await store.put("k", write(work, b"content"))
    with pytest.raises(ArtifactCorruptError):
        await read(store, "k", "0" * 64)


@pytest.mark.parametrize("size_bytes", [0, 8 * MEBIBYTE, 8 * MEBIBYTE + 1])
async def test_a_fetch_of_any_size_is_whole(store: ArtifactStore, work: Path, size_bytes: int) -> None:
    content = (bytes(number % 251 for number in range(4096)) * (size_bytes // 4096 + 1))[:size_bytes]
    stored = await store.put("k", write(work, content))
    await store.fetch("k", work / "target", stored.sha256)
    assert (work / "target").read_bytes() == content


async def test_fetch_writes_the_whole_file(store: ArtifactStore, work: Path) -> None:
    stored = await store.put("k", write(work, b"x" * (MEBIBYTE + 1)))
    await store.fetch("k", work / "target", stored.sha256)
    assert (work / "target").read_bytes() == b"x" * (MEBIBYTE + 1)


async def test_a_corrupt_fetch_leaves_nothing(store: ArtifactStore, work: Path) -> None:
    await store.put("k", write(work, b"content"))
    (work / "target").write_bytes(b"before")
    with pytest.raises(ArtifactCorruptError):
        await store.fetch("k", work / "target", "0" * 64)
    assert (work / "target").read_bytes() == b"before"
    assert names(work) == ["file", "target"]


async def test_what_is_there_is_verified_and_nothing_else(store: ArtifactStore, work: Path) -> None:
    stored = await store.put("k", write(work, b"content"))
    await store.verify("k", stored)
    for wrong in (stored._replace(size_bytes=8), stored._replace(sha256="0" * 64)):
        with pytest.raises(ArtifactCorruptError):
            await store.verify("k", wrong)
    with pytest.raises(ArtifactMissingError):
        await store.verify("nothing", stored)


async def test_a_copy_stands_by_itself(store: ArtifactStore, work: Path) -> None:
    stored = await store.put("of/a b!", write(work, b"content"))
    await store.copy("of/a b!", "to/c d!")
    await store.copy("of/a b!", "to/c d!")
    await store.delete("of/a b!")
    assert await read(store, "to/c d!", stored.sha256) == b"content"
    assert [key async for key in store.list("")] == ["to/c d!"]


async def test_a_copy_of_nothing_is_missing_and_leaves_nothing(store: ArtifactStore, work: Path) -> None:
    with pytest.raises(ArtifactMissingError):
        await store.copy("nothing", "to/c")
    assert [key async for key in store.list("")] == []


async def test_deleting_is_safe_twice(store: ArtifactStore, work: Path) -> None:
    await store.put("a/b/c", write(work, b""))
    await store.put("a/d", write(work, b""))
    await store.delete("a/b/c")
    await store.delete("a/b/c")
    await store.delete("never/was")
    assert [key async for key in store.list("")] == ["a/d"]


async def test_listing_gives_the_keys_of_a_prefix_sorted(store: ArtifactStore, work: Path) -> None:
    source = write(work, b"")
    for key in ("j1/2/x", "j1/10/y", "j1/10/sub/z", "j10/1/x", "j2/1/x"):
        await store.put(key, source)
    assert [key async for key in store.list("j1/")] == ["j1/10/sub/z", "j1/10/y", "j1/2/x"]
    assert [key async for key in store.list("j1/1")] == ["j1/10/sub/z", "j1/10/y"]
    assert [key async for key in store.list("j1")] == ["j1/10/sub/z", "j1/10/y", "j1/2/x", "j10/1/x"]
    assert [key async for key in store.list("none/of/these")] == []


async def test_listing_is_sorted_by_bytes_where_folders_and_files_are_neighbours(
    store: ArtifactStore, work: Path
) -> None:
    keys = ["a-b/x", "a/b", "a/b-c", "a.b", "a0", "a/é", "a/z", "a/\uffee", "a/\U0001f600", "a/B"]
    await asyncio.gather(*(store.put(key, write(work, b"")) for key in keys))
    assert [key async for key in store.list("")] == sorted(keys)
    assert [key async for key in store.list("a/")] == sorted(key for key in keys if key.startswith("a/"))


async def test_a_sweep_leaves_what_is_whole(store: ArtifactStore, work: Path) -> None:
    await store.put("a/b", write(work, b"content"))
    assert await store.sweep(0.0) == 0
    assert await read(store, "a/b") == b"content"


@pytest.mark.parametrize("key", ["j/1/ü ß%20+?#&.txt", "j/1/.hidden", "j/1/a b", "j/1/" + "x" * 200])
async def test_unusual_names_are_kept(store: ArtifactStore, work: Path, key: str) -> None:
    await store.put(key, write(work, b"content"))
    assert await read(store, key) == b"content"
    assert [found async for found in store.list("j/1/")] == [key]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "a\\b",
        "x" * 256,
        "a/" * 600,
        "\ud800",
    ],
)
async def test_keys_that_could_lead_astray_are_refused(store: ArtifactStore, work: Path, key: str) -> None:
    source = write(work, b"content")
    with pytest.raises(ArtifactError, match="artifact key"):
        await store.put(key, source)
    with pytest.raises(ArtifactError, match="artifact key"):
        await read(store, key)
    with pytest.raises(ArtifactError, match="artifact key"):
        await store.delete(key)
    with pytest.raises(ArtifactError, match="artifact key"):
        await store.presign(key, 60.0)
    with pytest.raises(ArtifactError, match="artifact key"):
        await store.presign_put(key, 60.0)


async def test_only_regular_files_are_put(store: ArtifactStore, work: Path) -> None:
    (work / "link").symlink_to("/etc/passwd")
    for source in (work, work / "link", work / "missing", Path("/dev/zero")):
        with pytest.raises(ArtifactStoreUnavailableError):
            await store.put("k", source)
    assert [key async for key in store.list("")] == []


async def test_fetch_replaces_a_link_and_does_not_follow_it(store: ArtifactStore, work: Path) -> None:
    stored = await store.put("k", write(work, b"content"))
    outside = write(work, b"untouched", "outside")
    (work / "target").symlink_to(outside)
    await store.fetch("k", work / "target", stored.sha256)
    assert outside.read_bytes() == b"untouched"
    assert (work / "target").read_bytes() == b"content"
    assert not (work / "target").is_symlink()


async def test_a_cancelled_put_leaves_nothing(store: ArtifactStore, work: Path) -> None:
    source = write(work, b"x" * (4 * MEBIBYTE))
    for turns in range(0, 60, 3):
        putting = asyncio.create_task(store.put("k", source))
        for _ in range(turns):
            await asyncio.sleep(0)
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
    found = [key async for key in store.list("")]
    assert found in ([], ["k"])
    if found:
        assert len(await read(store, "k")) == 4 * MEBIBYTE


async def test_a_file_that_grows_while_it_is_stored_is_no_mixture(store: ArtifactStore, work: Path) -> None:
    source = write(work, b"x" * (20 * MEBIBYTE))
    putting = asyncio.create_task(store.put("k", source))
    with source.open("ab") as file:
        while not putting.done():
            file.write(b"y" * 1000)
            await asyncio.sleep(0)
    stored = await putting
    assert hashlib.sha256(await read(store, "k")).hexdigest() == stored.sha256


async def test_puts_and_deletes_of_one_folder_do_not_disturb_each_other(store: ArtifactStore, work: Path) -> None:
    source = write(work, b"content")

    async def churn(key: str) -> None:
        for _ in range(20):
            await store.put(key, source)
            assert await read(store, key) == b"content"
            await store.delete(key)

    await asyncio.gather(*(churn(f"a/b/{number}") for number in range(5)))
    assert [key async for key in store.list("")] == []


async def test_many_puts_at_once(store: ArtifactStore, work: Path) -> None:
    source = write(work, b"content")
    await asyncio.gather(*(store.put(f"j/{number}/x", source) for number in range(50)))
    assert len([key async for key in store.list("j/")]) == 50


async def test_close_is_safe_twice(store: ArtifactStore) -> None:
    await store.close()
    await store.close()
