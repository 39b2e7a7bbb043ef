"""The embedded server, on real folders and with real kills."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import asyncpg
import pytest

from formicary.errors import HomeHeldError
from formicary.store import launcher
from formicary.store.embedded import EmbeddedPostgres

OWNER = """
import asyncio, sys
from pathlib import Path
from urllib.parse import unquote
from formicary.store.embedded import EmbeddedPostgres

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]))
    url = await server.start()
    print(server.pid, url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "pg")
    yield server
    await server.stop()


async def _ask(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _until_gone(pid: int) -> None:
    async with asyncio.timeout(40):
        while _is_alive(pid):  # noqa: ASYNC110 - the process is nobody's child here
            await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def _uids(pid: int | None) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]


def _spawn_owner(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)


def _read_owner(owner: "subprocess.Popen[str]") -> tuple[int, str]:
    assert owner.stdout is not None
    pid, url = owner.stdout.readline().split()
    return int(pid), url


async def test_serves_with_durable_settings_and_no_network(server: EmbeddedPostgres) -> None:
    url = await server.start()

    assert await _ask(url, "SHOW fsync") == "on"
    assert await _ask(url, "SHOW synchronous_commit") == "on"
    assert await _ask(url, "SHOW listen_addresses") == ""


async def test_data_survive_a_stop_and_a_start(server: EmbeddedPostgres) -> None:
    url = await server.start()
    await _ask(url, "CREATE TABLE kept AS SELECT 42 AS value")
    await server.stop()

    url = await server.start()

    assert await _ask(url, "SELECT value FROM kept") == 42


async def test_stop_is_safe_twice_and_before_start(server: EmbeddedPostgres) -> None:
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()

    assert server.pid is None


async def test_data_are_closed_to_other_users(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await server.start()

    for folder in (tmp_path / "pg", tmp_path / "pg" / "data", tmp_path / "pg" / "socket"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="says what happens for root")
async def test_root_runs_it_as_another_user_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "pg")
    try:
        await server.start()
        uids = _uids(server.pid)
    finally:
        await server.stop()

    assert "0" not in uids
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_another_user_than_root_runs_it_as_itself(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    # The capability lets the other user pass the closed folders of this machine's Python and of pytest.
    numbers = (os.getpid(), 65534, 65534, 2, int(signal.SIGKILL))
    command = [sys.executable, launcher.__file__, *map(str, numbers), sys.executable, "-c", OWNER, str(folder / "pg")]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        pid, _ = _read_owner(owner)
        assert Path(f"/proc/{pid}").stat().st_uid == 65534
    finally:
        owner.kill()
        owner.wait()
    asyncio.run(_until_gone(pid))


async def test_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("long" * 30))
    try:
        url = await server.start()
        assert await _ask(url, "SELECT 1") == 1
    finally:
        await server.stop()
    assert not Path(unquote(url.partition("host=")[2])).exists()  # noqa: ASYNC240 - one look


async def test_a_second_owner_of_a_folder_is_refused_and_told_who_holds_it(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    await server.start()

    with pytest.raises(HomeHeldError) as refusal:
        await EmbeddedPostgres(tmp_path / "pg").start()

    assert refusal.value.holder["pid"] == str(os.getpid())
    assert server.pid is not None


async def test_dies_with_its_owner_and_starts_again_at_once(tmp_path: Path) -> None:
    owner = _spawn_owner(tmp_path / "pg")
    pid, url = await asyncio.to_thread(_read_owner, owner)
    await _ask(url, "CREATE TABLE kept AS SELECT 7 AS value")

    owner.kill()
    owner.wait()
    successor = EmbeddedPostgres(tmp_path / "pg")
    try:
        url = await successor.start()
        assert await _ask(url, "SELECT value FROM kept") == 7
        assert not _is_alive(pid)
    finally:
        await successor.stop()


async def test_a_killed_server_is_started_again_while_its_owner_lives(server: EmbeddedPostgres) -> None:
    url = await server.start()
    await _ask(url, "CREATE TABLE kept AS SELECT 9 AS value")
    former = server.pid
    assert former is not None

    os.kill(former, signal.SIGKILL)

    assert await _ask_until_answered(url, "SELECT value FROM kept") == 9
    assert server.pid != former


async def _ask_until_answered(url: str, sql: str) -> object:
    async with asyncio.timeout(40):
        while True:
            try:
                return await _ask(url, sql)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.02)


async def test_a_stale_lock_file_and_a_half_made_cluster_do_not_matter(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    half = tmp_path / "pg" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    await server.start()
    await server.stop()
    (tmp_path / "pg" / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n/nowhere\n0\n5432\n\n\n\n")

    url = await server.start()

    assert await _ask(url, "SELECT 1") == 1
