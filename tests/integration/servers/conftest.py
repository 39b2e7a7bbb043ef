"""Real brokers of ``scripts/servers``, started once, and colonies of the real command line over them."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "servers"
FORMICARY = Path(sys.executable).parent / "formicary"
#: What may take long on a machine that does other things too, in seconds.
PATIENCE_S = 60.0

Command = Callable[..., subprocess.CompletedProcess[str]]


class Servers:
    """Brokers in one folder; ``urls`` of one starts it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._urls: dict[str, dict[str, str]] = {}

    def urls(self, name: str) -> dict[str, str]:
        """Returns the URLs of a server, such as ``URL``, ``TLS_URL`` and ``LIMITED_URL``."""
        if name not in self._urls:
            found = {}
            for line in self._run("start", name).splitlines():
                variable, _, value = line.removeprefix("export ").partition("=")
                found[variable.removeprefix(f"FORMICARY_TEST_{name.upper()}_")] = shlex.split(value)[0]
            self._urls[name] = found
        return self._urls[name]

    def end(self) -> None:
        for name in self._urls:
            self._run("stop", name, "--purge")

    def _run(self, action: str, *arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), action, *arguments, "--dir", str(self._folder)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    # Readable for others: where the tests run as root, Postgres runs as somebody else.
    with tempfile.TemporaryDirectory(prefix="formicary-servers-") as folder:
        Path(folder).chmod(0o755)
        servers = Servers(Path(folder))
        yield servers
        servers.end()


@pytest.fixture(scope="session")
def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}


@pytest.fixture
def home() -> Iterator[Path]:
    # Short and readable for others: the embedded server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="formicary-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield server.getsockname()[1]


@pytest.fixture
def formicary(bare_environment: dict[str, str], home: Path) -> Command:
    """Runs the command line to its end."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FORMICARY, *arguments],
            env={**bare_environment, "FORMICARY_HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


class Server:
    """A long-lived command, its log in a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log = folder / f"{arguments[0]}.log"
        self.ready = folder / f"{arguments[0]}.ready"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [FORMICARY, *arguments, "--ready-file", str(self.ready)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def until(self, claim: Callable[[], bool]) -> None:
        """Returns when the claim holds; fails where the process ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not claim():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"does not end\n{self.log.read_text()}") from None


@pytest.fixture
def serve(bare_environment: dict[str, str], home: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of the command line; it ends with the test."""
    started: list[Server] = []

    def start(*arguments: str, **environment: str) -> Server:
        settings = {**bare_environment, "FORMICARY_HOME": str(home), "FORMICARY_LOG_FORMAT": "json", **environment}
        started.append(Server(tmp_path, settings, *arguments))
        return started[-1]

    yield start
    for server in reversed(started):
        server.end()
