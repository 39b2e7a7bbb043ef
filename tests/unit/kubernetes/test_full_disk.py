"""A disk of the ant that is full while files move: the attempt ends as one whose files cannot be had, or given."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from executors.errors import CollectFailedError, StartFailedError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.collecting import collect
from executors.kubernetes.manifest import Plan
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.run import PodRun
from executors.kubernetes.starting import Patience
from executors.kubernetes.transfer import Transfer
from executors.specs import ContainerSpec, KubernetesSpec
from executors.testing import CollectingSink, make_attempt
from tests.unit.kubernetes.conftest import ApiServer, succeed

LIMIT_BYTES = 256 * 1024


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no file gets large: that ends a write as a full disk does."""
    folder = tmp_path / "attempt" / "work"
    folder.mkdir(parents=True)
    (folder / "input").write_bytes(bytes(LIMIT_BYTES))
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, former[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


async def test_what_does_not_fit_on_the_ant_cannot_be_collected(
    server: ApiServer, connection: Cluster, full: Path
) -> None:
    async def say_much(socket: web.WebSocketResponse) -> None:
        for _ in range(8):
            await socket.send_bytes(b"\x01" + bytes(LIMIT_BYTES // 4))
        await succeed(socket)

    server.command = say_much
    with pytest.raises(CollectFailedError, match=r"on the ant: .*File too large"):
        await Transfer(connection, "x").get("/w", ["a"], full)


async def test_inputs_for_whose_archive_the_ant_has_no_room_fail_the_start(connection: Cluster, full: Path) -> None:
    with pytest.raises(StartFailedError, match=r"on the ant: .*File too large"):
        await Transfer(connection, "x").put(full, "/w")


async def test_a_folder_that_cannot_be_made_on_the_ant_is_one_that_cannot_be_collected(
    connection: Cluster, tmp_path: Path
) -> None:
    async def say_nothing(_: str) -> str:
        return ""

    spec = KubernetesSpec(container=ContainerSpec(image="i"), script=("true",))
    attempt = make_attempt(spec, tmp_path / "work")
    attempt.folder.result_dir.touch()
    plan = Plan(attempt=attempt, spec=spec, session="s", token="t", mark="m")
    patience = Patience(spec, KubernetesOptions(), say_nothing)
    run = PodRun(connection, plan, {"metadata": {"name": "x"}}, CollectingSink(), patience)
    run._on_mark("0::r")

    with pytest.raises(CollectFailedError, match=r"stored on the ant: .*File exists"):
        await collect(run, [], with_results=True)
