"""MESSAGING against the example service, over each broker: nothing of Formicary on the service's side."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "bus-worker"
#: What anything may take on a machine that does other things too, in seconds.
PATIENCE_S = 60.0

Servers = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any


class Api:
    """A colony, asked over HTTP."""

    def __init__(self, server: Server) -> None:
        events = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        (self._address,) = [event["address"] for event in events if event["event"] == "api_listens"]
        self._call("/api/v1/definitions", (EXAMPLE / "sums.yaml").read_bytes())

    def submit(self, numbers: list[int]) -> str:
        body = {"job_type": "sums", "params": {"numbers": numbers}}
        job_id: str = json.loads(self._call("/api/v1/jobs", json.dumps(body).encode()))["id"]
        return job_id

    def ended(self, job_id: str) -> dict[str, Any]:
        """Returns the tasks of a job once it has ended, and its state under an empty name."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            job = json.loads(self._call(f"/api/v1/jobs/{job_id}?wait_s=20"))
            if job["state"] in {"COMPLETED", "FAILED", "CANCELLED"}:
                return {"": job["state"], **{task["task_type"]: task for task in job["tasks"]}}
            assert time.monotonic() < deadline, job

    def metrics(self) -> str:
        return self._call("/metrics").decode()

    def _call(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self._address + path, body), timeout=PATIENCE_S) as answer:
            found: bytes = answer.read()
            return found


@pytest.fixture(params=["redis", "kafka", "pulsar"])
def broker_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return str(servers.urls(request.param)["URL"])


@pytest.fixture
def colony(serve: Callable[..., Server], broker_url: str) -> Api:
    settings = {"FORMICARY_BROKER_URL": broker_url, "FORMICARY_LISTEN": "127.0.0.1:0"}
    server = serve("up", "--slots", "8", **settings)
    server.until(server.ready.exists)
    return Api(server)


@pytest.fixture
def start_worker(
    broker_url: str, bare_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(EXAMPLE / "worker.py"), broker_url.partition("?")[0], "sums.requests"]
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            worker = subprocess.Popen(command, env=bare_environment, stdout=log, stderr=subprocess.STDOUT)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.terminate()
        assert worker.wait(PATIENCE_S) == 0
    logs = [path.read_text() for path in tmp_path.glob("worker-*.log")]
    assert all(log.startswith("works on sums.requests") and log.endswith("ends\n") for log in logs), logs


def test_a_service_does_tasks_that_waited_for_it(
    colony: Api, start_worker: Callable[[], subprocess.Popen[bytes]]
) -> None:
    jobs = [colony.submit(list(range(count))) for count in range(5)]
    start_worker()

    ended = [colony.ended(job) for job in jobs]

    assert [job[""] for job in ended] == ["COMPLETED"] * 5
    assert [job["add"]["outputs"] for job in ended[1:]] == [
        {"sum": sum(range(count)), "count": count} for count in range(1, 5)
    ]
    assert (ended[0]["add"]["exit_code"], ended[0]["nothing"]["state"]) == (3, "COMPLETED")
    assert ended[4]["report"]["state"] == "COMPLETED"
    assert 'formicary_replies_ignored_total{reason="unreadable"}' not in colony.metrics()


def test_the_example_needs_nothing_of_formicary() -> None:
    imported = {
        line.split()[1].partition(".")[0]
        for path in EXAMPLE.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith(("import ", "from "))
    }
    assert not imported & {"formicary", "brokers", "executors"}
    assert {"redis", "aiokafka", "pulsar"} <= imported
