"""Big files straight between pods and a bucket of a real S3 server."""

import asyncio
import contextlib
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.kubernetes.executor import KubernetesExecutor
from executors.kubernetes.options import KubernetesOptions
from executors.options import ExecutorOptions
from executors.specs import VolumeSpec
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.registry import make_store
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Fetch, Order
from formicary.ids import AntId
from formicary.model.definition import ArtifactsPolicy
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef
from formicary.testing.owner import ScriptedOwner
from tests.integration.kubernetes.conftest import script
from tests.s3_server import S3Server, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: This machine, seen from the pods.
HOST = "10.250.0.1"
#: What counts as big in these tests, and some more than that.
BIG_BYTES = 256 * 1024
SIZE_BYTES = 1_000_000
BIG = bytes(range(250)) * (SIZE_BYTES // 250)
#: This machine's programs, curl among them, beside those of the image.
PROGRAMS = tuple(VolumeSpec(mount_path=path, host_path=path, read_only=True) for path in ("/usr", "/lib", "/lib64"))
GNU_FIRST = "/formicary/work/own:/usr/bin:/bin"
BUSYBOX_FIRST = "/formicary/work/own:/bin:/usr/bin"
#: Puts something in front of curl that tells its arguments.
OWN_CURL = r"""printf '#!/bin/sh\necho "$@" >>arguments\nexec /usr/bin/curl "$@"\n' >own/curl; chmod +x own/curl"""
MAKE = f"head -c {SIZE_BYTES} /dev/urandom"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


class Gate:
    """The way from the pods to the S3 server; counts what passes."""

    def __init__(self, s3: S3Server) -> None:
        self._target = int(s3.endpoint.rpartition(":")[2])
        self.up_bytes = 0
        self.down_bytes = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pass(reader, far_writer, "up_bytes"), self._pass(far_reader, writer, "down_bytes"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                setattr(self, counter, getattr(self, counter) + len(data))
                writer.write(data)
                await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        """Lets pods through; gives the address that they know the server by."""
        server = await asyncio.start_server(self.handle, HOST, 0)
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        server.close()


class End(NamedTuple):
    """What became of a task."""

    artifacts: dict[str, ArtifactRef]
    lines: list[str]


class Field:
    """An ant for pods with a bucket, and its owner."""

    def __init__(self, home: Path, store: ArtifactStore, owner: ScriptedOwner) -> None:
        self._home = home
        self._numbers = itertools.count()
        self.store = store
        self.owner = owner

    async def run(self, *lines: str, path: str = GNU_FIRST, fetches: tuple[Fetch, ...] = (), **policy: Any) -> End:
        """Runs a script in a pod with curl; returns its end."""
        container = {"volumes": PROGRAMS}
        order = Order(
            job_type="j",
            task_type="t",
            method="KUBERNETES",
            spec=script(*lines, container=container, environment={"PATH": path}),
            timeout_s=60.0,
            fetches=fetches,
            artifacts=ArtifactsPolicy(**policy),
        )
        task_no = next(self._numbers)
        finished = await self.owner.run(order, task_no=task_no)
        assert finished.is_success, finished.error_message
        lines_of_task = [text for _, number, _, text in await self.owner.lines() if number == task_no]
        return End({ref.name: ref for ref in finished.artifacts}, lines_of_task)

    async def given(self, name: str, content: bytes) -> ArtifactRef:
        """Returns an artifact of an earlier task."""
        path = self._home / "given"
        path.write_bytes(content)
        sha256, size_bytes = await Blobs(self.store).add(path, Holder(self.owner.job_id, 9, 1))
        return ArtifactRef(name=name, sha256=sha256, size_bytes=size_bytes, is_executable=True)

    async def content(self, ref: ArtifactRef) -> bytes:
        """Returns an artifact."""
        return b"".join([chunk async for chunk in Blobs(self.store).get(ref.sha256)])


@contextlib.asynccontextmanager
async def field(s3: S3Server, options: KubernetesOptions, home: Path, endpoint: str) -> AsyncIterator[Field]:
    """An ant whose pods know the S3 server by an address of its own."""
    store = make_store(s3.url(home.name, presign_endpoint=endpoint))
    await store.open()
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "test", SystemClock())
    own = replace(options, allow_privileged=True, owner=home.name, direct_bytes=BIG_BYTES)
    executor = KubernetesExecutor(ExecutorOptions(kubernetes=own))
    ant = Ant(bus, {"KUBERNETES": executor}, store, AntConfig(id=AntId("ant-1"), home=home), SystemClock())
    await ant.start()
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    answering = asyncio.create_task(owner.answer())
    try:
        yield Field(home, store, owner)
    finally:
        answering.cancel()
        await ant.stop()
        await store.close()
        await broker.close()


#: The image's own tar cannot leave anything out, so what the task leaves goes through the ant there.
@pytest.mark.parametrize(("path", "goes_up"), [(GNU_FIRST, True), (BUSYBOX_FIRST, False)], ids=["gnu", "busybox"])
async def test_big_files_go_past_the_ant_both_ways(
    s3: S3Server, options: KubernetesOptions, tmp_path: Path, path: str, goes_up: bool
) -> None:
    gate = Gate(s3)
    async with gate.opened() as endpoint, field(s3, options, tmp_path, endpoint) as here:
        given = [await here.given("in/a", BIG), await here.given("in/small", b"small\n"), await here.given("t/b", BIG)]
        made = await here.run(
            "sha256sum in/a t/b; test -x in/a; cat in/small",
            f"mkdir -p own out/deep tree x/out/deep; {OWN_CURL}",
            f"{MAKE} >out/deep/a.bin; {MAKE} >no.bin; {MAKE} >tree/t.dat; echo small >s.bin; sha256sum out/deep/a.bin",
            "chmod +x out/deep/a.bin; ln -s out/deep/a.bin link.bin; echo other >x/out/deep/a.bin",
            path=path,
            fetches=(Fetch("before", 9, 1, tuple(given)),),
            paths=("**/*.bin", "tree", "arguments"),
            exclude=("no.bin",),
        )
        assert [line.split()[0] for line in made.lines[:3]] == [given[0].sha256, given[0].sha256, "small"]
        assert set(made.artifacts) - {"arguments"} == {
            *("out/deep/a.bin", "link.bin", "s.bin", "x/out/deep/a.bin", "tree.tar.zst")
        }
        big = made.artifacts["out/deep/a.bin"]
        assert (big.sha256, big.size_bytes, big.is_executable) == (made.lines[3].split()[0], SIZE_BYTES, True)
        assert made.artifacts["link.bin"].sha256 == big.sha256
        assert hashlib.sha256(await here.content(big)).hexdigest() == big.sha256
        assert await here.content(made.artifacts["x/out/deep/a.bin"]) == b"other\n"
        assert 2 * SIZE_BYTES < gate.down_bytes < 2.2 * SIZE_BYTES
        assert SIZE_BYTES * goes_up <= gate.up_bytes <= 10_000 + 1.1 * SIZE_BYTES * goes_up
        if goes_up:
            arguments = await here.content(made.artifacts["arguments"])
            assert b"-K -" in arguments
            assert not re.search(rb"http|X-Amz", arguments)


async def test_without_a_route_to_the_store_they_go_through_the_ant(
    s3: S3Server, options: KubernetesOptions, tmp_path: Path
) -> None:
    async with field(s3, options, tmp_path, f"http://{HOST}:1") as here:
        given = await here.given("given", BIG)
        made = await here.run(
            f"sha256sum given; {MAKE} >a.bin; sha256sum a.bin",
            fetches=(Fetch("before", 9, 1, (given,)),),
            paths=("a.bin",),
        )

    said = [line for line in made.lines if not line.startswith("big files")]
    assert [line.split()[0] for line in said] == [given.sha256, made.artifacts["a.bin"].sha256]
    (complaint,) = (line for line in made.lines if line.startswith("big files go through the ant, not straight"))
    assert "curl: (7) Failed to connect" in complaint


#: Programs of the container's own that the ant asks for digests and transfers.
LIES = {
    "of another content": """printf '#!/bin/sh\\necho %s\\n' {victim} >own/sha256sum""",
    "of what was sent": """printf '#!/bin/sh\\nexit 0\\n' >own/curl""",
    "of what was sent instead": """printf '#!/bin/sh\\nexec /usr/bin/curl -sf -K - -T b.bin\\n' >own/curl""",
}


async def test_a_container_that_lies_gets_nothing_and_spoils_nothing(
    s3: S3Server, options: KubernetesOptions, tmp_path: Path
) -> None:
    gate = Gate(s3)
    async with gate.opened() as endpoint, field(s3, options, tmp_path, endpoint) as here:
        secret = await here.given("secret", b"secret" * SIZE_BYTES)
        ends = await asyncio.gather(
            *(
                here.run(
                    f"mkdir own; {MAKE} >a.bin; {MAKE} >b.bin; /usr/bin/sha256sum a.bin",
                    f"{lie.format(victim=secret.sha256)}; chmod +x own/*",
                    paths=("a.bin",),
                )
                for lie in LIES.values()
            )
        )
        for end in ends:
            true = next(line for line in end.lines if line.endswith("a.bin")).split()[0]
            assert end.artifacts["a.bin"].sha256 == true
            assert hashlib.sha256(await here.content(end.artifacts["a.bin"])).hexdigest() == true
        assert len((await Blobs(here.store).shelf(secret.sha256)).copies) == 1
