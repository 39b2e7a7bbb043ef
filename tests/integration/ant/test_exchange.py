"""Files of tasks that remote workers do: by URLs of a real bucket, past the ant."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from executors.options import ExecutorOptions
from executors.specs import WebsocketSpec
from executors.websocket import WebsocketExecutor
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.base import ArtifactMissingError, ArtifactStore
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.local import LocalStore
from formicary.artifacts.registry import make_store
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Fetch, Order
from formicary.events.tasks import TaskFinished
from formicary.ids import AntId, JobId
from formicary.model.definition import ArtifactsPolicy, ArtifactWhen
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef
from formicary.testing.owner import ScriptedOwner
from tests.s3_server import S3Server, serving

CONTENT = b"what the worker made"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
async def bucket(s3: S3Server, request: pytest.FixtureRequest) -> AsyncIterator[ArtifactStore]:
    store = make_store(s3.url(hashlib.sha256(request.node.name.encode()).hexdigest()[:8]))
    await store.open()
    yield store
    await store.close()


class Far:
    """An ant for remote workers, its owner, and one worker by hand."""

    def __init__(self, ant: Ant, owner: ScriptedOwner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._ant = ant
        self._socket = socket
        self.owner = owner
        self.task: dict[str, Any] = {}

    async def begin(self, *fetches: Fetch, **changes: Any) -> dict[str, Any]:
        """Dispatches a task; returns it as the worker gets it."""
        spec = WebsocketSpec(worker_method="work")
        order = Order(
            job_type="j", task_type="t", method="WEBSOCKET", spec=spec, timeout_s=60.0, fetches=fetches, **changes
        )
        await self.owner.send(self.owner.dispatch(order))
        self.task = await self._hear()
        return self.task

    async def announce(self, name: str, **about: Any) -> dict[str, Any]:
        """Asks where an artifact belongs."""
        told = {"name": name, "sha256": SHA256, "size_bytes": len(CONTENT), **about}
        await self._socket.send_json({"type": "artifact", "task": self.task["task"], **told})
        return await self._hear()

    async def end(self, status: str = "COMPLETED") -> TaskFinished:
        await self._socket.send_json({"type": "result", "task": self.task["task"], "status": status})
        return await self.owner.finished()

    async def _hear(self) -> dict[str, Any]:
        async with asyncio.timeout(40):
            message: dict[str, Any] = await self._socket.receive_json()
        return message


async def make_far(bus: Bus, store: ArtifactStore, home: Path) -> AsyncIterator[Far]:
    executor = WebsocketExecutor(ExecutorOptions(workers_listen=("127.0.0.1", 0)))
    ant = Ant(bus, {"WEBSOCKET": executor}, store, AntConfig(id=AntId("ant-1"), home=home), SystemClock())
    await ant.start()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{executor.port}/v1/workers") as socket,
    ):
        await socket.send_json({"type": "register", "methods": ["work"]})
        assert (await socket.receive_json())["type"] == "registered"
        yield Far(ant, ScriptedOwner(bus, lambda: ant.registration.incarnation), socket)
    await ant.stop()


@pytest.fixture
async def far(bus: Bus, bucket: ArtifactStore, tmp_path: Path) -> AsyncIterator[Far]:
    async for far in make_far(bus, bucket, tmp_path / "home"):
        yield far


@pytest.fixture
async def far_of_a_folder(bus: Bus, store: LocalStore, tmp_path: Path) -> AsyncIterator[Far]:
    async for far in make_far(bus, store, tmp_path / "home"):
        yield far


async def put(upload: dict[str, Any], content: bytes = CONTENT) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.put(URL(upload["url"], encoded=True), data=content, headers=upload["headers"]) as answer,
    ):
        return answer.status


async def stored_input(store: ArtifactStore, owner: ScriptedOwner, folder: Path) -> Fetch:
    (folder / "in").write_bytes(b"input")
    sha256, size_bytes = await Blobs(store).add(folder / "in", Holder(owner.job_id, 9, 1))
    return Fetch("before", 9, 1, (ArtifactRef(name="in/a", sha256=sha256, size_bytes=size_bytes, is_executable=True),))


async def test_a_worker_gets_inputs_and_leaves_artifacts_by_urls(
    far: Far, bucket: ArtifactStore, tmp_path: Path
) -> None:
    task = await far.begin(await stored_input(bucket, far.owner, tmp_path))
    (given,) = task["inputs"]
    assert (given["name"], given["task_type"], given["is_executable"]) == ("in/a", "before", True)
    async with aiohttp.ClientSession() as session, session.get(URL(given["url"], encoded=True)) as answer:
        assert await answer.read() == b"input"

    upload = await far.announce("out/made", is_executable=True)
    assert (upload["type"], upload["name"], upload["refusal"], await put(upload)) == ("upload", "out/made", None, 200)
    assert await put(await far.announce("copy")) == 200
    end = await far.end()

    assert {ref.name: (ref.sha256, ref.is_executable) for ref in end.artifacts} == {
        "out/made": (SHA256, True),
        "copy": (SHA256, False),
    }
    await Blobs(bucket).fetch(SHA256, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == CONTENT


async def test_what_was_announced_and_never_stored_fails_the_task(far: Far, bucket: ArtifactStore) -> None:
    await far.begin()
    upload = await far.announce("made")
    assert await put(upload, b"something else") == 400
    end = await far.end()
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "made: was announced, but its content was not stored" in (end.error_message or "")
    with pytest.raises(ArtifactMissingError):
        await anext(Blobs(bucket).get(SHA256))


async def test_who_knows_only_the_digest_of_what_others_stored_is_not_given_it(
    far: Far, bucket: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    await Blobs(bucket).add(tmp_path / "secret", Holder(JobId("another"), 0, 1))
    await far.begin()
    assert (await far.announce("made"))["url"] is not None
    end = await far.end()
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "made: was announced, but its content was not stored" in (end.error_message or "")


async def test_a_wrong_size_fails_the_task(far: Far) -> None:
    await far.begin()
    assert await put(await far.announce("made")) == 200
    assert await put(await far.announce("again", size_bytes=1)) == 200
    end = await far.end()
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "again: cannot be taken" in (end.error_message or "")


async def test_what_a_server_without_checksums_took_is_read_and_deleted_where_it_is_wrong(
    bus: Bus, s3: S3Server, tmp_path: Path
) -> None:
    bucket = make_store(s3.url("without", checksums="off"))
    await bucket.open()
    async for far in make_far(bus, bucket, tmp_path / "home"):
        await far.begin()
        assert await put(await far.announce("right")) == 200
        wrong = await far.announce("wrong", sha256="0" * 64)
        assert await put(wrong, CONTENT) == 200
        end = await far.end()
        assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
        assert "wrong: cannot be taken" in (end.error_message or "")
        assert [key.split("/")[2] async for key in bucket.list("blobs/")] == [SHA256]
    await bucket.close()


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b"])
async def test_a_name_that_leads_out_is_refused_and_harms_nothing(far: Far, name: str) -> None:
    await far.begin()
    upload = await far.announce(name)
    assert upload["url"] is None
    assert "must be a relative path" in upload["refusal"]
    end = await far.end()
    assert (end.is_success, end.artifacts) == (True, ())


async def test_a_task_that_fails_leaves_what_its_policy_says(far: Far) -> None:
    await far.begin()
    assert await put(await far.announce("made")) == 200
    assert (await far.end("FAILED")).artifacts == ()


async def test_a_task_that_fails_may_leave_what_is_for_failures(far: Far) -> None:
    await far.begin(artifacts=ArtifactsPolicy(when=ArtifactWhen.ON_FAILURE))
    assert await put(await far.announce("made")) == 200
    end = await far.end("FAILED")
    assert (end.exit_code, [ref.name for ref in end.artifacts]) == (1, ["made"])


async def test_a_folder_has_no_urls_and_says_so(far_of_a_folder: Far, store: LocalStore, tmp_path: Path) -> None:
    far = far_of_a_folder
    task = await far.begin(await stored_input(store, far.owner, tmp_path))
    assert [given["url"] for given in task["inputs"]] == [None]
    assert "the artifact store is a folder" in (await far.announce("made"))["refusal"]
    assert (await far.end()).is_success
