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
from typing import Any

import pytest


class Up:
    """``formicary up`` on a home folder; started, killed and started again by tests."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self._ready = folder / "ready"
        self._log = folder / "up.log"
        self._port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it and returns the seconds until it served."""
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "formicary.cli.main", "up", "--listen", f"127.0.0.1:{self._port}"]
        command += ["--ready-file", str(self._ready), "--slots", "8"]
        start = time.monotonic()
        with self._log.open("ab") as log:
            environment = {**os.environ, "FORMICARY_HOME": str(self.home), "FORMICARY_LOG_FORMAT": "json"}
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
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

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Returns the JSON answer of the API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/api/v1{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=40) as answer:
            return json.loads(answer.read())

    def submit(self, definition: str) -> str:
        """Saves a definition and submits a job of it; returns the job's id."""
        record = self.call("POST", "/definitions", definition.encode())
        job = self.call("POST", "/jobs", json.dumps({"job_type": record["job_type"]}).encode())
        return str(job["id"])

    def job(self, job_id: str, wait_s: int = 0) -> Any:
        """Returns a job, once it is terminal or ``wait_s`` passed."""
        return self.call("GET", f"/jobs/{job_id}" + (f"?wait_s={wait_s}" if wait_s else ""))


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
