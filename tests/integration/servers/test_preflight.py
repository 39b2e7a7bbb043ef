"""``queen --check`` and ``ant --check``; and what a process says that waits, without --check, for what is away."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Command = Callable[..., CompletedProcess[str]]
Servers = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

#: A check with everything away must end within this time, in seconds; each part is given 5 s.
FAST_S = 60.0


@pytest.fixture
def settings(servers: Servers, tmp_path: Path) -> dict[str, str]:
    """What a queen and an ant need, all there."""
    return {
        "FORMICARY_DATABASE_URL": servers.urls("postgres")["URL"],
        "FORMICARY_BROKER_URL": servers.urls("redis")["URL"],
        "FORMICARY_ARTIFACTS_URL": (tmp_path / "artifacts").as_uri(),
        "FORMICARY_LISTEN": "127.0.0.1:0",
    }


def parts(text: str, word: str) -> dict[str, str]:
    """Returns the parts that are ``ok``, ``warn`` or ``wrong``, with what is said of them."""
    rows = [line.split(maxsplit=2) for line in text.splitlines() if line.startswith(f"{word} ")]
    return {part: finding for _, part, finding in rows}


def test_a_queen_that_has_all_it_needs_says_so_and_exits(formicary: Command, settings: dict[str, str]) -> None:
    ended = formicary("queen", "--check", **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert parts(ended.stdout, "ok").keys() == {"settings", "database", "broker", "artifacts", "listen"}
    assert "schema to be created at the first start" in ended.stdout
    assert "throw-away" not in ended.stdout


def test_an_ant_that_has_all_it_needs_says_so_and_exits(formicary: Command, settings: dict[str, str]) -> None:
    ended = formicary("ant", "--check", "--methods", "SHELL,PYTHON", **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert parts(ended.stdout, "ok").keys() == {"settings", "broker", "artifacts", "home", "SHELL", "PYTHON"}


def test_a_queen_is_told_everything_that_is_wrong_at_once(formicary: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    began = time.monotonic()
    with socket.socket() as taken, socket.socket() as unused:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        ended = formicary(
            "queen",
            "--check",
            FORMICARY_DATABASE_URL=f"postgresql://someone:very-secret@127.0.0.1:{port}/x",
            FORMICARY_BROKER_URL=f"redis://:very-secret@127.0.0.1:{port}",
            FORMICARY_ARTIFACTS_URL=(tmp_path / "file").as_uri(),
            FORMICARY_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}",
        )
    assert ended.returncode == 1
    wrong = parts(ended.stdout, "wrong")
    assert wrong.keys() == {"database", "broker", "artifacts", "listen"}
    assert "cannot be reached" in wrong["database"]
    assert "cannot be reached" in wrong["broker"]
    assert "in use" in wrong["listen"]
    assert "very-secret" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - began < FAST_S


def test_a_wrong_password_of_the_database_is_told(formicary: Command, settings: dict[str, str]) -> None:
    url = settings["FORMICARY_DATABASE_URL"].replace("throw-away", "very-wrong")
    ended = formicary("queen", "--check", **(settings | {"FORMICARY_DATABASE_URL": url}))
    assert ended.returncode == 1
    assert "password authentication failed" in parts(ended.stdout, "wrong")["database"]
    assert "very-wrong" not in ended.stdout + ended.stderr


def test_an_ant_is_told_what_it_cannot_run(formicary: Command, settings: dict[str, str]) -> None:
    ended = formicary("ant", "--check", "--methods", "SHELL,TELEPATHY", **settings)
    assert ended.returncode == 1
    assert parts(ended.stdout, "wrong")["methods"].startswith("no executor for method TELEPATHY")


def test_a_file_in_place_of_the_home_is_named(formicary: Command, settings: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    in_the_way = settings | {"FORMICARY_HOME": str(tmp_path / "file")}
    ended = formicary("ant", "--check", "--methods", "SHELL", **in_the_way)
    assert parts(ended.stdout, "wrong")["home"].startswith(f"FORMICARY_HOME: {tmp_path}/file cannot be used")

    ended = formicary("ant", **in_the_way)
    assert (ended.returncode, "FORMICARY_HOME" in ended.stderr) == (2, True)
    assert "defect" not in ended.stderr


def test_engine_and_cluster_that_are_none_are_named_by_their_variables(
    formicary: Command, settings: dict[str, str]
) -> None:
    wrong = settings | {"DOCKER_HOST": "garbage", "KUBECONFIG": "/nope"}
    ended = formicary("ant", "--check", "--methods", "DOCKER,KUBERNETES", **wrong)
    found = parts(ended.stdout, "wrong")
    assert found["DOCKER"].startswith("DOCKER_HOST: 'garbage' is no address")
    assert "KUBECONFIG: there is no file /nope" in found["KUBERNETES"]


def test_a_database_and_a_bucket_without_tls_are_told_where_it_is_asked_for(
    formicary: Command, settings: dict[str, str], servers: Servers
) -> None:
    endpoint = servers.urls("s3")["ENDPOINT"].replace("http://", "https://")
    wrong = settings | {
        "FORMICARY_DATABASE_URL": settings["FORMICARY_DATABASE_URL"] + "?sslmode=require",
        "FORMICARY_ARTIFACTS_URL": f"s3://bucket?endpoint={endpoint}",
    }
    ended = formicary("queen", "--check", AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", **wrong)
    found = parts(ended.stdout, "wrong")
    assert "it has no TLS, which sslmode asks for" in found["database"]
    assert "for a port without TLS write http://" in found["artifacts"]


def test_a_misspelt_setting_is_named_and_ends_nothing(formicary: Command, settings: dict[str, str]) -> None:
    ended = formicary("queen", "--check", FORMICARY_BROKR_URL="redis://:very-secret@x", **settings)
    assert ended.returncode == 0
    assert "did you mean FORMICARY_BROKER_URL?" in parts(ended.stdout, "warn")["settings"]

    ended = formicary("settings", FORMICARY_BROKR_URL="redis://:very-secret@x")
    assert "did you mean FORMICARY_BROKER_URL?" in ended.stderr
    assert "very-secret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("process", ["queen", "ant"])
def test_a_broker_that_nobody_else_reaches_is_wrong_for_one_of_several(
    formicary: Command, settings: dict[str, str], process: str
) -> None:
    ended = formicary(process, "--check", **(settings | {"FORMICARY_BROKER_URL": "memory://"}))
    assert ended.returncode == 1
    assert "set FORMICARY_BROKER_URL" in parts(ended.stdout, "wrong")["broker"]


@pytest.mark.parametrize("process", ["queen", "ant"])
def test_settings_that_cannot_be_read_are_told(formicary: Command, settings: dict[str, str], process: str) -> None:
    ended = formicary(process, "--check", **(settings | {"FORMICARY_ANT_LEASE_S": "soon"}))
    assert ended.returncode == 1
    assert "FORMICARY_ANT_LEASE_S: 'soon' is not a number" in parts(ended.stdout, "wrong")["settings"]


@pytest.mark.parametrize(
    ("process", "setting"),
    [
        pytest.param("queen", "FORMICARY_BROKER_URL", id="queen-broker"),
        pytest.param("ant", "FORMICARY_BROKER_URL", id="ant-broker"),
        pytest.param("queen", "FORMICARY_DATABASE_URL", id="queen-database"),
    ],
)
def test_without_check_a_wrong_secret_ends_the_start_with_a_sentence(
    formicary: Command, settings: dict[str, str], process: str, setting: str
) -> None:
    url = settings[setting].replace("throw-away", "very-wrong")
    ended = formicary(process, **(settings | {setting: url}))
    assert ended.returncode == 3
    assert "refuse" in ended.stderr
    assert "very-wrong" not in ended.stderr
    assert "a defect" not in ended.stderr


@pytest.mark.parametrize("process", ["queen", "ant"])
def test_without_check_a_broker_that_is_away_is_waited_for_and_said_so(
    serve: Callable[..., Server], settings: dict[str, str], bare_environment: dict[str, str], process: str
) -> None:
    """A relay plays the server that comes later: nothing listens on its port at first."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    login, _, place = settings["FORMICARY_BROKER_URL"].rpartition("@")
    goal = place.partition("/")[0].rpartition(":")[2]
    waiting = serve(process, **(settings | {"FORMICARY_BROKER_URL": f"{login}@127.0.0.1:{port}"}))
    waiting.until(lambda: _events(waiting.log, "broker_away"))
    assert not waiting.ready.exists()

    relay = subprocess.Popen([sys.executable, "-c", RELAY, str(port), goal], env=bare_environment)
    try:
        waiting.until(waiting.ready.exists)
        assert [event["after"] for event in _events(waiting.log, "waited_enough")] == ["broker_away"]
        waiting.end()
    finally:
        relay.kill()
        relay.wait()


RELAY = """
import asyncio, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def _events(log: Path, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in found if event["event"] == name]
