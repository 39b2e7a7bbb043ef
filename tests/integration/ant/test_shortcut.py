"""Big files of an attempt that go past the ant: what is let through, and what the ant makes of it."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from executors.base import Upload
from executors.errors import InputMissingError
from executors.specs import DummySpec
from formicary.ant.errors import TransferError
from formicary.ant.folders import AttemptFolder
from formicary.ant.shortcut import Shortcut
from formicary.ant.transfer import Transfer, select
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.registry import make_store
from formicary.events.orders import Fetch, Order
from formicary.ids import JobId
from formicary.model.definition import ArtifactsPolicy
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef
from tests.s3_server import S3Server, serving

CONTENT = b"much of it"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = (JobId("01a2"), 1, 1)
HOLDER = Holder(*KEY)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
async def bucket(s3: S3Server, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    store = make_store(s3.url(tmp_path.name))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    return AttemptFolder(str(tmp_path / "attempt"))


def shortcut(store: ArtifactStore, folder: AttemptFolder, *fetches: Fetch, **policy: Any) -> Shortcut:
    """Returns a shortcut for files of ten bytes and more."""
    order = Order(
        job_type="j",
        task_type="t",
        method="KUBERNETES",
        spec=DummySpec(),
        timeout_s=60.0,
        fetches=fetches,
        artifacts=ArtifactsPolicy(**policy),
    )
    return Shortcut(Blobs(store), HOLDER, order, folder, 10, Transfer(store).fetch_one)


async def put(upload: Upload | None, content: bytes) -> int:
    assert upload is not None
    assert upload.url is not None
    url = URL(upload.url, encoded=True)
    async with aiohttp.ClientSession() as session, session.put(url, data=content, headers=upload.headers) as answer:
        return answer.status


async def given(store: ArtifactStore, folder: Path, name: str, content: bytes) -> ArtifactRef:
    (folder / "given").write_bytes(content)
    sha256, size_bytes = await Blobs(store).add(folder / "given", HOLDER)
    return ArtifactRef(name=name, sha256=sha256, size_bytes=size_bytes)


async def test_a_file_that_was_sent_is_selected_like_one_that_is_here(
    bucket: ArtifactStore, folder: AttemptFolder
) -> None:
    files = shortcut(bucket, folder, paths=("out/*",))
    assert await put(await files.offer("out/a", SHA256, 10, is_executable=True), CONTENT) == 200
    assert await files.accept("out/a")
    (folder.path() / "out").mkdir()
    (folder.path() / "out" / "link").symlink_to("a")

    sent = files.place()
    selection = select(ArtifactsPolicy(paths=("out/*", "none")), folder)
    refs = await Transfer(bucket).store(KEY, selection, folder.path(), sent)

    assert selection.unmatched == ["none"]
    assert {(ref.name, ref.sha256, ref.size_bytes) for ref in refs} == {("out/a", SHA256, 10), ("out/link", SHA256, 10)}
    assert [ref.name for ref in refs if ref.is_executable] == ["out/a", "out/link"]


async def test_who_knows_a_digest_only_is_given_nothing(
    bucket: ArtifactStore, folder: AttemptFolder, tmp_path: Path
) -> None:
    secret = await given(bucket, tmp_path, "secret", CONTENT)
    files = shortcut(bucket, folder, paths=("a",))

    upload = await files.offer("a", secret.sha256, secret.size_bytes, is_executable=False)

    assert await put(upload, b"not so much") == 400
    assert not await files.accept("a")
    assert files.place() == {}


async def test_a_stand_in_is_put_behind_no_symlink(
    bucket: ArtifactStore, folder: AttemptFolder, tmp_path: Path
) -> None:
    files = shortcut(bucket, folder, paths=("a/*",))
    await put(await files.offer("a/b", SHA256, 10, is_executable=False), CONTENT)
    assert await files.accept("a/b")
    (folder.path() / "a").symlink_to(tmp_path)

    with pytest.raises(TransferError, match="a symlink is on the way"):
        files.place()
    assert not (tmp_path / "b").exists()


async def test_big_inputs_have_urls_unless_something_else_has_their_name(
    bucket: ArtifactStore, folder: AttemptFolder, tmp_path: Path
) -> None:
    big, small = await given(bucket, tmp_path, "big", CONTENT), await given(bucket, tmp_path, "small", b"little")
    folded = ArtifactRef(name="tree.tar.zst", sha256=big.sha256, size_bytes=10, folder="tree")
    below = ArtifactRef(name="tree/big", sha256=big.sha256, size_bytes=10)
    replaced = ArtifactRef(name="replaced", sha256=big.sha256, size_bytes=10)
    replacing = ArtifactRef(name="replaced", sha256=small.sha256, size_bytes=6)

    files = shortcut(
        bucket, folder, Fetch("a", 1, 1, (big, small, replaced, folded)), Fetch("b", 2, 1, (below, replacing))
    )

    assert await files.prepare() == {"big"}
    (one,) = files.inputs
    async with aiohttp.ClientSession() as session, session.get(URL(str(one.url), encoded=True)) as answer:
        assert await answer.read() == CONTENT
    await files.bring()
    assert (folder.path() / "big").read_bytes() == CONTENT


async def test_an_input_that_vanished_meanwhile_is_named(
    bucket: ArtifactStore, folder: AttemptFolder, tmp_path: Path
) -> None:
    files = shortcut(bucket, folder, Fetch("a", 1, 1, (await given(bucket, tmp_path, "big", CONTENT),)))
    await files.prepare()
    async for key in bucket.list("blobs/"):
        await bucket.delete(key)

    with pytest.raises(InputMissingError, match="artifact big: of task a is not in the store any more"):
        await files.bring()


@pytest.mark.parametrize(
    ("paths", "exclude", "wanted"),
    [
        (("*.bin",), (), {"a.bin"}),
        (("**",), ("out",), {"a.bin"}),
        (("out",), (), set()),
        (("./out/", "**/*.bin"), (), {"a.bin"}),
        (("out/b.bin",), (), {"out/b.bin"}),
        (("/etc",), (), set()),
    ],
)
def test_files_that_a_folder_takes_along_are_left_to_it(
    bucket: ArtifactStore, folder: AttemptFolder, paths: tuple[str, ...], exclude: tuple[str, ...], wanted: set[str]
) -> None:
    files = shortcut(bucket, folder, paths=paths, exclude=exclude)
    assert {name for name in ("a.bin", "out/b.bin") if files.is_wanted(name)} == wanted


async def test_stores_that_cannot_tell_what_strangers_put_there_have_none(s3: S3Server, tmp_path: Path) -> None:
    urls = [s3.url("with"), s3.url("without", checksums="off"), f"file://{tmp_path}"]
    assert [make_store(url).checks_uploads for url in urls] == [True, False, False]
