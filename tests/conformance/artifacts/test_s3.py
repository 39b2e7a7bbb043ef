"""What only an object store can do, or get wrong: signed URLs, uploads in parts, listings in pages, refusals."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import aioboto3
import aiohttp
import pytest
from yarl import URL

from formicary.artifacts.base import (
    ArtifactMissingError,
    ArtifactStore,
    ArtifactStoreAwayError,
    ArtifactStoreUnavailableError,
    Stored,
)
from formicary.artifacts.registry import make_store
from tests.s3_server import BUCKET, S3Server

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

MEBIBYTE = 1024 * 1024
ODD_KEY = "j/1/ü ß%20+?#&.txt"


@pytest.fixture
def prefix() -> str:
    return os.urandom(6).hex()


@pytest.fixture
async def store(s3: S3Server, prefix: str) -> AsyncIterator[ArtifactStore]:
    store = make_store(s3.url(prefix))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def client(s3: S3Server) -> "AsyncIterator[S3Client]":
    async with aioboto3.Session().client("s3", endpoint_url=s3.endpoint, region_name="us-east-1") as client:
        yield client


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Returns a client that has no credentials."""
    async with aiohttp.ClientSession() as session:
        yield session


def write(folder: Path, size_bytes: int, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size_bytes))
    return path


async def uploads(client: "S3Client", prefix: str) -> list[str]:
    page = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return [upload["Key"] for upload in page.get("Uploads", ())]


async def test_a_signed_url_gives_the_content_without_credentials(
    store: ArtifactStore, http: aiohttp.ClientSession, work: Path
) -> None:
    source = write(work, 1000)
    await store.put(ODD_KEY, source)
    url = await store.presign(ODD_KEY, 60.0)
    assert url is not None
    async with http.get(URL(url, encoded=True)) as answer:
        assert (answer.status, await answer.read()) == (200, source.read_bytes())
    async with http.get(URL(url.partition("?")[0], encoded=True)) as answer:
        assert answer.status == 403


async def test_a_signed_url_takes_the_content_without_credentials(
    store: ArtifactStore, http: aiohttp.ClientSession, work: Path
) -> None:
    content = os.urandom(3 * MEBIBYTE)
    put = await store.presign_put(ODD_KEY, 60.0)
    assert put is not None
    async with http.put(URL(put.url, encoded=True), data=content) as answer:
        assert answer.status == 200
    await store.fetch(ODD_KEY, work / "target", hashlib.sha256(content).hexdigest())
    assert (work / "target").read_bytes() == content


async def test_a_signed_url_with_a_digest_takes_this_content_only(
    store: ArtifactStore, http: aiohttp.ClientSession
) -> None:
    content = b"content"
    stored = Stored(hashlib.sha256(content).hexdigest(), len(content))
    put = await store.presign_put(ODD_KEY, 60.0, stored.sha256)
    assert put is not None
    for body, headers, status in ((b"another", put.headers, 400), (content, {}, 403), (content, put.headers, 200)):
        with pytest.raises(ArtifactMissingError):
            await store.verify(ODD_KEY, stored)
        async with http.put(URL(put.url, encoded=True), data=body, headers=headers) as answer:
            assert answer.status == status
    await store.verify(ODD_KEY, stored)


async def test_a_signed_url_is_good_for_one_key_and_one_method(
    store: ArtifactStore, http: aiohttp.ClientSession, work: Path
) -> None:
    await store.put("a", write(work, 10))
    get, put = await store.presign("a", 60.0), await store.presign_put("a", 60.0)
    assert get is not None
    assert put is not None
    for url, method in ((get, "PUT"), (get, "DELETE"), (put.url, "GET"), (put.url.replace("/a?", "/b?"), "PUT")):
        async with http.request(method, URL(url, encoded=True), data=b"" if method == "PUT" else None) as answer:
            assert answer.status == 403
    assert [key async for key in store.list("")] == ["a"]


@pytest.mark.parametrize(("asked_s", "given_s"), [(0.0, "1"), (90.5, "91"), (1e9, "604800")])
async def test_the_life_of_a_signed_url_is_bounded(store: ArtifactStore, asked_s: float, given_s: str) -> None:
    get, put = await store.presign("k", asked_s), await store.presign_put("k", asked_s)
    assert put is not None
    for url in (get or "", put.url):
        assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == [given_s]


async def test_signed_urls_name_the_address_under_which_others_reach_the_server(
    s3: S3Server, http: aiohttp.ClientSession, prefix: str, work: Path
) -> None:
    port = urlsplit(s3.endpoint).port
    store = make_store(s3.url(prefix, presign_endpoint=f"http://localhost:{port}"))
    await store.open()
    await store.put("k", write(work, 10))
    url = await store.presign("k", 60.0)
    await store.close()
    assert url is not None
    assert url.startswith(f"http://localhost:{port}/")
    async with http.get(URL(url, encoded=True)) as answer:
        assert (answer.status, await answer.read()) == (200, (work / "file").read_bytes())


async def test_a_listing_goes_over_pages(s3: S3Server, store: ArtifactStore, prefix: str) -> None:
    keys = sorted(f"j/{number % 7}/ü{number}" for number in range(1003))
    for key in keys:
        s3.plant(f"{prefix}/{key}")
    assert [key async for key in store.list("j/")] == keys


async def test_a_large_file_goes_in_parts_and_leaves_no_upload(
    store: ArtifactStore, client: "S3Client", prefix: str, work: Path
) -> None:
    stored = await store.put("k", write(work, 16 * MEBIBYTE + 1))
    found = await client.head_object(Bucket=BUCKET, Key=f"{prefix}/k")
    assert found["ETag"].endswith('-3"')
    assert found["ContentLength"] == stored.size_bytes == 16 * MEBIBYTE + 1
    assert await uploads(client, prefix) == []


async def test_a_cancelled_upload_in_parts_leaves_nothing(
    store: ArtifactStore, client: "S3Client", prefix: str, work: Path
) -> None:
    source = write(work, 40 * MEBIBYTE)
    for _ in range(3):
        putting = asyncio.create_task(store.put("k", source))
        while not await uploads(client, prefix):
            assert not putting.done()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await uploads(client, prefix) == []
    assert [key async for key in store.list("")] == []


async def test_a_file_that_shrinks_while_it_is_stored_leaves_nothing(
    store: ArtifactStore, client: "S3Client", prefix: str, work: Path
) -> None:
    source = write(work, 80 * MEBIBYTE)
    putting = asyncio.create_task(store.put("k", source))
    while not await uploads(client, prefix):
        assert not putting.done()
    os.truncate(source, MEBIBYTE)
    with pytest.raises(ArtifactStoreUnavailableError, match="changed while it was stored"):
        await putting
    assert await uploads(client, prefix) == []
    assert [key async for key in store.list("")] == []


async def test_a_sweep_takes_uploads_whose_writer_died(store: ArtifactStore, client: "S3Client", prefix: str) -> None:
    keys = [f"{prefix}/{ODD_KEY}", f"{prefix}/b"]
    for key in [*keys, f"{prefix}-of-another/k"]:
        begun = await client.create_multipart_upload(Bucket=BUCKET, Key=key)
        await client.upload_part(Bucket=BUCKET, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x")
    assert await store.sweep(3600.0) == 0
    assert sorted(await uploads(client, f"{prefix}/")) == sorted(keys)
    assert await store.sweep(-60.0) == 2
    assert await uploads(client, prefix) == [f"{prefix}-of-another/k"]


async def test_keys_of_another_prefix_are_not_seen(s3: S3Server, store: ArtifactStore, prefix: str, work: Path) -> None:
    await store.put("k", write(work, 10))
    other = make_store(s3.url(prefix[:-1]))
    await other.open()
    assert [key async for key in other.list("")] == []
    with pytest.raises(ArtifactMissingError):
        await other.fetch("k", work / "target", "0" * 64)
    await other.close()


async def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    store = make_store(s3.url("p").replace(BUCKET, "no-such-bucket", 1))
    with pytest.raises(ArtifactStoreUnavailableError, match=r"no-such-bucket.* create it first"):
        await store.open()
    await store.close()


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
async def test_wrong_credentials_are_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "wrong")
    store = make_store(s3.url("p"))
    with pytest.raises(ArtifactStoreUnavailableError, match=r"forbidden .*check credentials and rights") as caught:
        await store.open()
    assert not isinstance(caught.value, ArtifactStoreAwayError)
    await store.close()


async def test_no_credentials_at_all_are_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(work / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(work / "none"))
    store = make_store(s3.url("p"))
    with pytest.raises(ArtifactStoreUnavailableError, match="set AWS_ACCESS_KEY_ID"):
        await store.open()
    await store.close()


async def test_an_unknown_profile_is_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    store = make_store(s3.url("p"))
    with pytest.raises(ArtifactStoreUnavailableError, match="nobody"):
        await store.open()
    await store.close()


async def test_a_server_that_is_away_is_told_from_one_that_refuses(s3: S3Server, unused_tcp_port: int) -> None:
    store = make_store(s3.url("p", endpoint=f"http://127.0.0.1:{unused_tcp_port}"))
    with pytest.raises(ArtifactStoreAwayError, match="cannot be reached"):
        await store.open()
    await store.close()


async def test_a_store_that_is_not_open_says_so(s3: S3Server, work: Path) -> None:
    store = make_store(s3.url("p"))
    with pytest.raises(ArtifactStoreUnavailableError, match="is not open"):
        await store.put("k", write(work, 1))
    await store.close()
