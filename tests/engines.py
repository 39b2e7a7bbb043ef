"""A real container engine for tests: one of its own by ``scripts/servers``, or the one that a variable names.

Nothing is hidden by a skip where tests run as root, as in CI: there an engine that cannot be started is a failure. Who
is not root cannot start one, and is told so; ``FORMICARY_TEST_DOCKER_HOST`` names an engine, or Podman's socket, that
tests may use. It needs an image ``busybox:local``, which is put there.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from formicary.ant.engines import UnixConnection

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts" / "servers.d" / "docker"
GIVEN = os.environ.get("FORMICARY_TEST_DOCKER_HOST", "")
IMAGE = "busybox:local"

needs_engine = pytest.mark.skipif(
    os.geteuid() != 0 and not GIVEN,
    reason="an engine of one's own needs root; or set FORMICARY_TEST_DOCKER_HOST to the socket of one that may be used",
)
needs_own_engine = pytest.mark.skipif(
    os.geteuid() != 0, reason="stopping an engine needs one's own, and that needs root"
)


class TestEngine:
    """A running engine, and the calls that tests check it with."""

    __test__ = False

    def __init__(self, folder: str | None, name: str = "docker") -> None:
        self._folder = folder
        self._name = name
        self.url = GIVEN
        #: The way over TCP, for clients with the certificate that lies there; an engine that was given has none.
        self.tls_url = ""
        self.certs = Path()

    def start(self) -> None:
        """Starts it, or starts it again."""
        lines = [line.removeprefix("export FORMICARY_TEST_") for line in self._servers("start").splitlines()]
        values = {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}
        self.url = values[f"{self._name.upper()}_HOST"]
        self.tls_url = values.get("DOCKER_TLS_HOST", "")
        self.certs = Path(values.get("DOCKER_CERT_PATH", ""))

    def stop(self, *arguments: str) -> None:
        """Ends it; with ``--signal KILL`` as a crash would."""
        self._servers("stop", *arguments)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the engine's process for a while: it takes connections, and answers none."""
        pid = int(Path(f"{self._folder}/{self._name}/pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _servers(self, action: str, *arguments: str) -> str:
        command = [
            sys.executable,
            str(ROOT / "scripts/servers"),
            action,
            self._name,
            "--dir",
            str(self._folder),
            *arguments,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def call(self, verb: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """Calls the engine's own interface; returns its answer, or None where it has none."""
        with contextlib.closing(UnixConnection(self.url.removeprefix("unix://"))) as connection:
            connection.request(verb, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        return json.loads(data) if data and answer.headers.get_content_subtype() == "json" else None

    def containers(self, label: str = "formicary.job") -> list[Any]:
        """Returns the containers that carry a label, in any state."""
        filters = quote(json.dumps({"label": [label]}))
        found: list[Any] = self.call("GET", f"/containers/json?all=1&filters={filters}")
        return found

    def networks(self) -> list[Any]:
        """Returns the networks of attempts."""
        filters = quote(json.dumps({"label": ["formicary.job"]}))
        found: list[Any] = self.call("GET", f"/networks?filters={filters}")
        return found


@contextlib.contextmanager
def running_engine(name: str = "docker") -> Iterator[TestEngine]:
    """Yields an engine, ``docker`` or ``podman``, that has the image ``busybox:local``.

    One that was started here is gone afterwards.
    """
    if GIVEN and name == "docker":
        engine = TestEngine(None)
        socket = GIVEN.removeprefix("unix://")
        subprocess.run([SCRIPTS / "busybox-image.sh", socket], check=True, capture_output=True)
        yield engine
        return
    folder = tempfile.mkdtemp(prefix="fe-")  # short: a socket's path ends at 107 characters
    engine = TestEngine(folder, name)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop("--purge")
        shutil.rmtree(folder, ignore_errors=True)
