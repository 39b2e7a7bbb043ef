"""What only a folder can get wrong: full disks, missing rights, links inside the store, leftovers."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from formicary.artifacts.base import ArtifactError, ArtifactStoreUnavailableError
from formicary.artifacts.local import LocalStore
from formicary.artifacts.registry import make_store
from formicary.errors import InvalidInputError


@pytest.fixture
async def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    await store.open()
    return store


_PUT = """
import asyncio, sys
from pathlib import Path
from formicary.artifacts.local import LocalStore
from formicary.artifacts.base import ArtifactStoreUnavailableError

async def main():
    store = LocalStore(Path(sys.argv[1]))
    await store.open()
    try:
        await store.put("k", Path(sys.argv[2]))
    except ArtifactStoreUnavailableError as exc:
        print(exc)
    print([path.name for path in Path(sys.argv[1]).rglob("*")])

asyncio.run(main())
"""


async def test_a_disk_that_fills_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"),
        *(str(tmp_path / "disk"), sys.executable, _PUT, str(tmp_path / "source")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert output.decode().splitlines() == ["cannot write artifact: the disk is full", "[]"], errors.decode()


async def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactStoreUnavailableError, match="is in the way"):
        await LocalStore(tmp_path / "file" / "store").open()


async def test_a_link_inside_the_store_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (tmp_path / "store" / "link").symlink_to(outside)
    (tmp_path / "store" / "file").symlink_to(outside / "secret")
    (tmp_path / "source").write_bytes(b"x")
    for key in ("link/secret", "file"):
        with pytest.raises(ArtifactError):
            _ = [chunk async for chunk in store.get(key)]
    with pytest.raises(ArtifactError):
        await store.put("link/new", tmp_path / "source")
    await store.delete("link/secret")
    assert (outside / "secret").read_bytes() == b"secret"
    assert [key async for key in store.list("")] == []
    assert [key async for key in store.list("link/")] == []


async def test_puts_and_deletes_of_one_folder_do_not_disturb_each_other(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")

    async def churn(name: str) -> None:
        for _ in range(20):
            await store.put(f"a/b/{name}", tmp_path / "source")
            await store.delete(f"a/b/{name}")

    await asyncio.gather(*(churn(str(number)) for number in range(5)))
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/x", "must be file:///folder or s3://bucket"),
        ("folder", "must be file:///folder"),
        ("file://relative/folder", "three slashes"),
        ("file://[", "malformed"),
    ],
)
def test_a_url_that_names_no_store_says_what_would_be_right(url: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_store(url)


async def test_a_sweep_takes_drafts_that_nobody_writes_any_more(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    await store.put("a/b", tmp_path / "source")
    old, new = (tmp_path / "store" / "a" / f".formicary-{name}" for name in ("old", "new"))
    for draft, age_s in ((old, 7200), (new, 60)):
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age_s,) * 2)
    os.utime(tmp_path / "store" / "a" / "b", (0, 0))
    assert await store.sweep(3600) == 1
    assert sorted(path.name for path in (tmp_path / "store" / "a").iterdir()) == [".formicary-new", "b"]


async def test_a_listing_reads_a_folder_when_it_comes_to_it(tmp_path: Path, store: LocalStore) -> None:
    for name in [*(f"a/{number:04}" for number in range(1500)), "b/1"]:
        (tmp_path / "store" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "store" / name).touch()
    keys = store.list("")
    assert await anext(keys) == "a/0000"
    (tmp_path / "store/b/2").touch()
    assert [key async for key in keys][-2:] == ["b/1", "b/2"]
