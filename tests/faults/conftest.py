"""A real ``formicary up`` in a process of its own, to be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FORMICARY = Path(sys.executable).parent / "formicary"


class Answer(NamedTuple):
    """What the API answered, whatever its status."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the body as JSON."""
        return json.loads(self.body)


class Up:
    """``formicary up`` on a home folder; started, killed and started again by tests."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
        self.environment = bare | {"FORMICARY_HOME": str(self.home), "FORMICARY_LOG_FORMAT": "json"}
        self._ready = folder / "ready"
        self._log = folder / "up.log"
        self._port = _free_port()
        self.flags: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it and returns the seconds until it served."""
        self._ready.unlink(missing_ok=True)
        command: list[str | Path] = [FORMICARY, "up", "--listen", f"127.0.0.1:{self._port}"]
        command += ["--ready-file", self._ready, "--slots", "8", *self.flags]
        start = time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stderr=log, stdout=log)
        self.until(self._ready.exists, "up is ready")
        return time.monotonic() - start

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ends it with SIGTERM; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def log(self) -> str:
        """Returns what it logged so far."""
        return self._log.read_text()

    def until(self, claim: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Returns once the claim holds; fails when the process ended or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not claim():
            assert self.process is None or self.process.poll() is None, f"up ended before {what}:\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s until {what}:\n{self.log()[-4000:]}"
            time.sleep(0.01)

    def call(self, method: str, path: str, body: bytes | None = None, wait_s: int = 0) -> Any:
        """Returns the JSON answer of the API, which may take ``wait_s`` to come."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/api/v1{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=wait_s + 40) as answer:
            return json.loads(answer.read())

    def exchange(self, method: str, path: str, body: bytes | None = None, key: str | None = None) -> Answer:
        """Returns the API's answer also where it is an error; ``key`` is the idempotency key."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/api/v1{path}", body, method=method)
        if key is not None:
            request.add_header("Idempotency-Key", key)
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a command line that talks to this colony."""
        environment = self.environment | {"FORMICARY_SERVER": f"http://127.0.0.1:{self._port}"}
        return run_command(environment, *arguments)

    def submit(self, definition: str, **params: object) -> str:
        """Saves a definition and submits a job of it; returns the job's id."""
        record = self.call("POST", "/definitions", definition.encode())
        wanted = {"job_type": record["job_type"], "params": params}
        return str(self.call("POST", "/jobs", json.dumps(wanted).encode())["id"])

    def lines(self, job_id: str) -> list[str]:
        """Returns what the tasks of a job printed."""
        return [json.loads(line)["text"] for line in self.exchange("GET", f"/jobs/{job_id}/logs").body.splitlines()]

    def job(self, job_id: str, wait_s: int = 0) -> Any:
        """Returns a job, once it is terminal or ``wait_s`` passed."""
        return self.call("GET", f"/jobs/{job_id}" + (f"?wait_s={wait_s}" if wait_s else ""), wait_s=wait_s)


def run_command(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command line to its end."""
    return subprocess.run(
        [FORMICARY, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A colony that is not started yet; ended with the test, however it went."""
    colony = Up(tmp_path)
    yield colony
    if colony.process is not None and colony.process.poll() is None:
        colony.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A colony that serves, shared by the tests of a file; it must be alive and able to work at their end."""
    colony = Up(tmp_path_factory.mktemp("served"))
    colony.start()
    yield colony
    sound = colony.submit("job_type: sound\ntasks: [{task_type: say, method: SHELL, script: [echo sound]}]")
    assert colony.job(sound, wait_s=60)["state"] == "COMPLETED"
    assert colony.stop() == 0
    assert "Traceback" not in colony.log()
