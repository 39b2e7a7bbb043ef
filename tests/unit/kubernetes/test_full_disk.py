"""A disk of the ant that is full while files move: the attempt ends as one whose files cannot be had, or given."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from executors.errors import CollectFailedError, StartFailedError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.transfer import Transfer
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
