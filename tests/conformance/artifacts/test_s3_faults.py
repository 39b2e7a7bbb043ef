"""What the S3 store makes of servers that fail, of connections that break, and of bytes that change on the way."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session

from formicary.artifacts.base import (
    ArtifactCorruptError,
    ArtifactStore,
    ArtifactStoreAwayError,
    ArtifactStoreUnavailableError,
)
from formicary.artifacts.registry import make_store
from tests.conformance.artifacts.kinds import (
    is_abort,
    is_any,
    is_begin,
    is_end,
    is_get,
    is_later_part,
    is_list,
    is_put,
    is_second_part,
)
from tests.conformance.artifacts.proxy import Fault, Proxy, Request
from tests.s3_server import BUCKET, S3Server

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def proxy(s3: S3Server) -> AsyncIterator[Proxy]:
    place = urlsplit(s3.endpoint)
    assert place.hostname is not None
    assert place.port is not None
    proxy = Proxy(place.hostname, place.port)
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest.fixture
def prefix() -> str:
    return os.urandom(6).hex()


@pytest.fixture
async def store(s3: S3Server, proxy: Proxy, prefix: str) -> AsyncIterator[ArtifactStore]:
    """Returns a store whose every byte goes through the proxy."""
    store = make_store(s3.url(prefix, proxy.endpoint, patience_s="4", timeout_s="2"))
    await store.open()
    yield store
    await store.close()


def write(folder: Path, size_bytes: int) -> Path:
    path = folder / "file"
    path.write_bytes(os.urandom(size_bytes))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def uploads(s3: S3Server, prefix: str) -> list[str]:
    async with get_session().create_client("s3", endpoint_url=s3.endpoint, region_name="us-east-1") as client:
        page = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return [upload["Key"] for upload in page.get("Uploads", ())]


async def keys(store: ArtifactStore) -> list[str]:
    return [key async for key in store.list("")]


@pytest.mark.parametrize(
    ("meant", "status", "code"),
    [
        (is_put, 503, "SlowDown"),
        (is_put, 400, "BadDigest"),
        (is_put, 409, "ExistingObjectIsDirectory"),
        (is_begin, 500, "InternalError"),
        (is_second_part, 503, "SlowDown"),
        (is_second_part, 400, "XAmzContentChecksumMismatch"),
        (is_end, 500, "InternalError"),
        (is_end, 429, "TooManyRequests"),
    ],
)
async def test_an_upload_goes_on_after_refusals_that_pass(
    store: ArtifactStore, proxy: Proxy, work: Path, meant: Callable[[Request], bool], status: int, code: str
) -> None:
    source = write(work, 1000 if meant is is_put else 17 * MEBIBYTE)
    proxy.faults = [Fault(meant, times=3, status=status, code=code)]
    stored = await store.put("k", source)
    assert proxy.faults[0].times == 0
    assert stored.sha256 == digest(source)
    await store.fetch("k", work / "target", stored.sha256)


@pytest.mark.parametrize("meant", [is_get, is_list, is_any])
async def test_reads_and_deletes_go_on_after_refusals_that_pass(
    store: ArtifactStore, proxy: Proxy, work: Path, meant: Callable[[Request], bool]
) -> None:
    stored = await store.put("k", write(work, 1000))
    proxy.faults = [Fault(meant, times=3, status=503, code="SlowDown")]
    if meant is is_get:
        await store.fetch("k", work / "target", stored.sha256)
    elif meant is is_list:
        assert await keys(store) == ["k"]
    else:
        await store.delete("k")
    assert proxy.faults[0].times == 0


async def test_a_server_that_stays_busy_is_away_once_patience_is_over(
    s3: S3Server, proxy: Proxy, prefix: str, work: Path
) -> None:
    store = make_store(s3.url(prefix, proxy.endpoint, patience_s="0.3"))
    await store.open()
    proxy.faults = [Fault(is_put, times=1000, status=503, code="SlowDown")]
    with pytest.raises(ArtifactStoreAwayError, match="SlowDown 503: of the proxy"):
        await store.put("k", write(work, 1000))
    assert await keys(store) == []
    await store.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((507, "InsufficientStorage"), "the store is full"),
        ((403, "QuotaExceeded"), "the store is full"),
        ((403, "AccessDenied"), "forbidden"),
        ((404, "NoSuchBucket"), "there is no such bucket"),
        ((301, "PermanentRedirect"), "set option region"),
        ((501, "NotImplemented"), "refused"),
    ],
)
@pytest.mark.parametrize("meant", [is_put, is_second_part])
async def test_refusals_that_stay_are_said_at_once_and_nothing_is_left(
    s3: S3Server,
    store: ArtifactStore,
    proxy: Proxy,
    prefix: str,
    work: Path,
    meant: Callable[[Request], bool],
    answer: tuple[int, str],
    message: str,
) -> None:
    proxy.faults = [Fault(meant, times=1000, status=answer[0], code=answer[1])]
    with pytest.raises(ArtifactStoreUnavailableError, match=message) as caught:
        await store.put("k", write(work, 1000 if meant is is_put else 17 * MEBIBYTE))
    assert not isinstance(caught.value, ArtifactStoreAwayError)
    assert 1000 - proxy.faults[0].times <= 2
    assert await keys(store) == []
    assert await uploads(s3, prefix) == []


@pytest.mark.parametrize(("meant", "at"), [(is_put, 300_000), (is_put, 0), (is_second_part, 300_000), (is_end, 100)])
async def test_an_upload_that_is_cut_is_made_again(
    s3: S3Server,
    store: ArtifactStore,
    proxy: Proxy,
    prefix: str,
    work: Path,
    meant: Callable[[Request], bool],
    at: int,
) -> None:
    source = write(work, MEBIBYTE if meant is is_put else 17 * MEBIBYTE)
    proxy.faults = [Fault(meant, times=3, cut_request_at=at)]
    stored = await store.put("k", source)
    assert proxy.faults[0].times == 0
    assert stored.sha256 == digest(source)
    await store.fetch("k", work / "target", stored.sha256)
    assert await uploads(s3, prefix) == []


@pytest.mark.parametrize("meant", [is_put, is_begin, is_second_part, is_end])
async def test_an_upload_whose_answer_is_lost_is_whole_nevertheless(
    store: ArtifactStore, proxy: Proxy, work: Path, meant: Callable[[Request], bool]
) -> None:
    source = write(work, 1000 if meant is is_put else 17 * MEBIBYTE)
    proxy.faults = [Fault(meant, cut_response_at=0)]
    stored = await store.put("k", source)
    assert proxy.faults[0].times == 0
    await store.fetch("k", work / "target", stored.sha256)
    assert digest(work / "target") == digest(source) == stored.sha256


@pytest.mark.parametrize("meant", [is_put, is_second_part])
async def test_an_upload_that_arrives_damaged_is_made_again(
    store: ArtifactStore, proxy: Proxy, work: Path, meant: Callable[[Request], bool]
) -> None:
    source = write(work, 100_000 if meant is is_put else 17 * MEBIBYTE)
    proxy.faults = [Fault(meant, times=2, flip_request_at=70_000)]
    stored = await store.put("k", source)
    assert proxy.faults[0].times == 0
    assert stored.sha256 == digest(source)
    await store.fetch("k", work / "target", stored.sha256)


async def test_no_server_is_asked_whether_it_will_take_the_content(
    store: ArtifactStore, proxy: Proxy, work: Path
) -> None:
    await store.put("k", write(work, 17 * MEBIBYTE))
    await store.put("k", write(work, 2 * MEBIBYTE))
    assert [request.target for request in proxy.seen if "expect" in request.headers] == []


async def test_an_upload_that_always_arrives_damaged_is_not_stored(
    s3: S3Server, proxy: Proxy, prefix: str, work: Path
) -> None:
    store = make_store(s3.url(prefix, proxy.endpoint, patience_s="0.5"))
    await store.open()
    proxy.faults = [Fault(is_put, times=1000, flip_request_at=500)]
    with pytest.raises(ArtifactStoreAwayError, match="BadDigest"):
        await store.put("k", write(work, 1000))
    assert await keys(store) == []
    await store.close()


async def test_a_download_goes_on_where_it_was_cut(store: ArtifactStore, proxy: Proxy, work: Path) -> None:
    stored = await store.put("k", write(work, 3 * MEBIBYTE))
    proxy.faults = [Fault(is_get, times=3, cut_response_at=MEBIBYTE - 10_000)]
    await store.fetch("k", work / "target", stored.sha256)
    assert digest(work / "target") == stored.sha256
    starts = [int(request.headers["range"][6:].partition("-")[0]) for request in proxy.seen if is_get(request)]
    assert len(starts) == 4
    assert starts == sorted(set(starts))
    assert starts[-1] > MEBIBYTE


async def test_a_large_file_comes_in_parts_of_one_object_and_a_cut_one_goes_on(
    store: ArtifactStore, proxy: Proxy, work: Path
) -> None:
    stored = await store.put("k", write(work, 20 * MEBIBYTE + 1))
    proxy.faults = [Fault(is_later_part, cut_response_at=3 * MEBIBYTE)]
    await store.fetch("k", work / "target", stored.sha256)
    assert digest(work / "target") == stored.sha256
    gets = [request for request in proxy.seen if is_get(request)]
    assert len(gets) == 3
    assert all("if-match" in request.headers for request in gets[1:])


async def test_an_object_that_is_replaced_while_its_parts_come_is_fetched_anew(
    store: ArtifactStore, proxy: Proxy, work: Path
) -> None:
    stored = await store.put("k", write(work, 20 * MEBIBYTE))
    proxy.faults = [Fault(is_later_part, status=412, code="PreconditionFailed")]
    await store.fetch("k", work / "target", stored.sha256)
    assert digest(work / "target") == stored.sha256
    proxy.faults = [Fault(is_later_part, times=1000, flip_response_at=70_000)]
    with pytest.raises(ArtifactCorruptError, match=stored.sha256):
        await store.fetch("k", work / "other", stored.sha256)
    assert names(work) == ["file", "target"]


async def test_patience_begins_anew_with_every_byte(s3: S3Server, proxy: Proxy, prefix: str, work: Path) -> None:
    store = make_store(s3.url(prefix, proxy.endpoint, patience_s="0.3"))
    await store.open()
    stored = await store.put("k", write(work, 3 * MEBIBYTE))
    proxy.faults = [Fault(is_get, times=20, cut_response_at=140_000)]
    await store.fetch("k", work / "target", stored.sha256)
    assert proxy.faults[0].times == 0
    await store.close()


async def test_an_object_that_is_replaced_while_a_download_is_cut_is_no_mixture(
    store: ArtifactStore, proxy: Proxy, work: Path
) -> None:
    stored = await store.put("k", write(work, 2 * MEBIBYTE))
    proxy.faults = [Fault(is_get, cut_response_at=MEBIBYTE)]
    chunks = store.get("k", stored.sha256)
    await anext(chunks)
    await store.put("k", write(work, 2 * MEBIBYTE))
    with pytest.raises(ArtifactCorruptError, match="was replaced while it was read"):
        _ = [chunk async for chunk in chunks]


async def test_a_fetch_that_arrives_damaged_is_made_again(store: ArtifactStore, proxy: Proxy, work: Path) -> None:
    stored = await store.put("k", write(work, 100_000))
    proxy.faults = [Fault(is_get, flip_response_at=70_000)]
    await store.fetch("k", work / "target", stored.sha256)
    assert digest(work / "target") == stored.sha256


async def test_what_always_arrives_damaged_is_not_handed_out(store: ArtifactStore, proxy: Proxy, work: Path) -> None:
    stored = await store.put("k", write(work, 100_000))
    (work / "target").write_bytes(b"before")
    proxy.faults = [Fault(is_get, times=1000, flip_response_at=70_000)]
    with pytest.raises(ArtifactCorruptError, match=stored.sha256):
        await store.fetch("k", work / "target", stored.sha256)
    with pytest.raises(ArtifactCorruptError, match=stored.sha256):
        _ = [chunk async for chunk in store.get("k", stored.sha256)]
    assert (work / "target").read_bytes() == b"before"
    assert names(work) == ["file", "target"]


async def test_a_slow_connection_is_not_a_broken_one(s3: S3Server, proxy: Proxy, prefix: str, work: Path) -> None:
    store = make_store(s3.url(prefix, proxy.endpoint, timeout_s="2", patience_s="0"))
    await store.open()
    proxy.faults = [Fault(is_put, pause_s=0.025), Fault(is_get, pause_s=0.025)]
    stored = await store.put("k", write(work, 6 * MEBIBYTE))
    await store.fetch("k", work / "target", stored.sha256)
    assert [fault.times for fault in proxy.faults] == [0, 0]
    await store.close()


@pytest.mark.parametrize("meant", [is_put, is_get, is_second_part])
async def test_a_connection_that_stands_still_is_left(
    s3: S3Server, proxy: Proxy, prefix: str, work: Path, meant: Callable[[Request], bool]
) -> None:
    store = make_store(s3.url(prefix, proxy.endpoint, timeout_s="1"))
    await store.open()
    source = write(work, 17 * MEBIBYTE if meant is is_second_part else 1000)
    if meant is is_get:
        await store.put("k", source)
    proxy.faults = [Fault(meant, stalled=(stalled := asyncio.Event()))]
    moving = asyncio.create_task(
        store.fetch("k", work / "target", digest(source)) if meant is is_get else _put(store, "k", source)
    )
    await stalled.wait()
    await moving
    await store.close()


async def _put(store: ArtifactStore, key: str, source: Path) -> None:
    await store.put(key, source)


async def test_a_put_that_is_cancelled_while_the_server_stands_still_ends_soon(
    store: ArtifactStore, proxy: Proxy, work: Path
) -> None:
    stalled, aborted = asyncio.Event(), asyncio.Event()
    proxy.faults = [Fault(is_second_part, stalled=stalled), Fault(is_abort, times=1000, stalled=aborted)]
    putting = asyncio.create_task(store.put("k", write(work, 17 * MEBIBYTE)))
    await stalled.wait()
    putting.cancel()
    async with asyncio.timeout(40):
        with pytest.raises(asyncio.CancelledError):
            await putting
    assert aborted.is_set()


async def test_an_upload_that_cannot_even_be_aborted_is_found_by_a_sweep(
    s3: S3Server, store: ArtifactStore, proxy: Proxy, prefix: str, work: Path
) -> None:
    proxy.faults = [
        Fault(is_second_part, times=1000, status=403, code="AccessDenied"),
        Fault(is_abort, times=2, status=403, code="AccessDenied"),
    ]
    with pytest.raises(ArtifactStoreUnavailableError, match="forbidden"):
        await store.put("k", write(work, 17 * MEBIBYTE))
    assert await uploads(s3, prefix) == [f"{prefix}/k"]
    proxy.faults = []
    assert await store.sweep(-60.0) == 1
    assert await uploads(s3, prefix) == []


async def test_a_store_is_used_through_an_outage(store: ArtifactStore, proxy: Proxy, work: Path) -> None:
    await proxy.close()
    putting = asyncio.create_task(store.put("k", write(work, 1000)))
    await asyncio.wait({putting}, timeout=0.5)
    assert not putting.done()
    await proxy.open()
    stored = await putting
    await store.fetch("k", work / "target", stored.sha256)


async def test_a_server_that_is_killed_while_it_takes_a_file_gets_all_of_it_later(tmp_path: Path, work: Path) -> None:
    server = S3Server(tmp_path / "server")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.login.items():
            patch.setenv(name, value)
        await server.make_bucket()
        store = make_store(server.url("p"))
        await store.open()
        source = write(work, 60 * MEBIBYTE)
        putting = asyncio.create_task(store.put("k", source))
        while not list((tmp_path / "server" / "s3" / "data").rglob("2")):
            await asyncio.sleep(0)
            assert not putting.done()
        server.kill()
        assert not putting.done()
        await asyncio.to_thread(server.start)
        stored = await putting
        assert stored.sha256 == digest(source)
        await store.fetch("k", work / "target", stored.sha256)
        await store.close()
    server.stop()
