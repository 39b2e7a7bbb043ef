"""The example workers, each a process of its own, connected to a real ``formicary up``."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.s3_server import serving

WORKERS = Path(__file__).parents[2] / "docs" / "examples" / "workers"
FILES = (WORKERS / "files.yaml").read_text(encoding="utf-8")
EXAMPLE = (WORKERS / "workers.yaml").read_text(encoding="utf-8")
FORMICARY = Path(sys.executable).parent / "formicary"
PYTHON = [sys.executable, str(WORKERS / "python" / "count_words.py")]
NODE = ["node", str(WORKERS / "javascript" / "count-words.mjs")]
CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",  # without it, a page that is loaded is the end of it
]
TOKEN = "secret of the workers"
#: What anything may take on a machine that does other things too, in seconds.
PATIENCE_S = 60.0
COUNT_DOWN = """
job_type: count-down
tasks:
  - task_type: count
    method: WEBSOCKET
    worker: {method: count-down}
    payload: {from: 100}
    retry: 1
"""


def until(claim: Callable[[], Any], what: str) -> Any:
    """Returns what the claim gives as soon as it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := claim()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s until {what}"
        time.sleep(0.02)
    return found


class Colony:
    """``formicary up``, the workers of a test, and the command line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
        self._bare = bare | {"FORMICARY_WORKERS_TOKEN": TOKEN}
        self._log = folder / "up.log"

    def up(self, **settings: str) -> None:
        environment = {
            "FORMICARY_HOME": str(self._folder / "home"),
            "FORMICARY_LOG_FORMAT": "json",
            "FORMICARY_WORKERS_LISTEN": "127.0.0.1:0",
            **settings,
        }
        self._bare |= environment
        command = [str(FORMICARY), "up", "--listen", "127.0.0.1:0", "--slots", "4"]
        self._start(command, self._log)
        self._api = until(lambda: self.logged("api_listens"), "up listens")["address"]
        port = until(lambda: self.logged("workers_welcome"), "workers may come")["port"]
        self.workers_url = f"ws://127.0.0.1:{port}/v1/workers"

    def logged(self, event: str) -> dict[str, Any] | None:
        """Returns the first such event in the log of ``up``."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return next((each for each in events if each["event"] == event), None)

    def page(self, address: str) -> None:
        """Opens a page in a browser."""
        profile = self._folder / f"profile-{len(self._processes)}"
        command = [*CHROMIUM, f"--user-data-dir={profile}", address]
        self._start(command, self._folder / "chromium.log")

    def worker(self, command: list[str], *tags: str) -> subprocess.Popen[bytes]:
        """Starts a worker and returns once it is registered."""
        log = self._folder / f"worker-{len(self._processes)}.log"
        process = self._start([*command, self.workers_url, *tags], log)
        until(lambda: "registered" in log.read_text(), f"registered: {log.read_text()}")
        return process

    def call(self, path: str, body: bytes | None = None) -> Any:
        """Asks the API: a GET, or a POST where there is a body."""
        request = urllib.request.Request(f"{self._api}/api/v1/{path}", body)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.read()

    def submit(self, definition: str, **params: str) -> str:
        self.call("definitions", definition.encode())
        (job_type,) = [line.partition(" ")[2] for line in definition.splitlines() if line.startswith("job_type: ")]
        job_id: str = json.loads(self.call("jobs", json.dumps({"job_type": job_type, "params": params}).encode()))["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call(f"jobs/{job_id}"))
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        """Returns the job once it has ended."""
        ends = {"COMPLETED", "FAILED", "CANCELLED"}

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in ends else None

        job: dict[str, Any] = until(look, "the job has ended")
        return job

    def count_down(self) -> str:
        """Submits a job that lasts and returns its id once a worker has its task."""
        job_id = self.submit(COUNT_DOWN)
        until(lambda: "has the task" in self.log_of(job_id), "a worker has the task")
        return job_id

    def log_of(self, job_id: str) -> str:
        lines = self.call(f"jobs/{job_id}/logs").splitlines()
        return "\n".join(json.loads(line)["text"] for line in lines)

    def dismiss(self) -> None:
        """Ends all workers."""
        while len(self._processes) > 1:
            _end(self._processes.pop())
        until(lambda: not self.workers(), "no worker is left")

    def workers(self) -> Any:
        """Returns what the workers offer that the queen knows of."""
        (ant,) = json.loads(self.call("ants"))["items"]
        return ant["workers"]

    def end(self) -> None:
        while self._processes:
            _end(self._processes.pop())

    def _start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=self._bare, stdout=file, stderr=subprocess.STDOUT)
        self._processes.append(process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """Serves the example's page; returns its origin."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(WORKERS / "javascript"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Returns the settings that make a bucket the artifact store."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield {**server.login, "FORMICARY_ARTIFACTS_URL": server.url("workers")}


@pytest.fixture(scope="module")
def up(pages: str, bucket: dict[str, str]) -> Iterator[Colony]:
    # Short and readable for others: the embedded server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="formicary-") as folder:
        Path(folder).chmod(0o755)
        colony = Colony(Path(folder))
        colony.up(FORMICARY_WORKERS_ORIGINS=pages, **bucket)
        yield colony
        colony.end()


@pytest.fixture
def colony(up: Colony) -> Iterator[Colony]:
    """The colony, without workers when the test begins."""
    yield up
    up.dismiss()


def test_workers_get_and_leave_files_by_urls_of_the_store(colony: Colony) -> None:
    colony.worker(PYTHON)
    colony.worker(NODE)

    job = colony.ended(colony.submit(FILES))

    assert job["state"] == "COMPLETED", job
    left = {task["task_type"]: {each["name"]: each for each in task["artifacts"]} for task in job["tasks"]}
    python, javascript = left["in-python"]["python/sorted.txt"], left["in-javascript"]["javascript/sorted.txt"]
    assert (python["sha256"], python["size_bytes"]) == (javascript["sha256"], javascript["size_bytes"])
    lines = colony.call(f"jobs/{job['id']}/artifacts/in-python/python/sorted.txt").split()
    assert lines == sorted(b"%d" % number for number in range(1, 100_001))


def test_workers_in_python_and_javascript_share_a_job_that_says_for_whom_it_waits(colony: Colony) -> None:
    job_id = colony.submit(EXAMPLE, text="the quick brown fox")
    until(
        lambda: (
            "no worker for count-words with tags [python] is connected" in (colony.job(job_id)["waiting_for"] or "")
        ),
        "the job says what it waits for",
    )

    colony.worker(PYTHON)
    colony.worker(NODE)

    job = colony.ended(job_id)
    tasks = {task["task_type"]: task for task in job["tasks"]}
    assert (job["state"], job["waiting_for"]) == ("COMPLETED", None)
    assert tasks["in-python"]["outputs"] == tasks["in-javascript"]["outputs"] == {"count": 4, "longest": "quick"}
    assert tasks["compare"]["outputs"] == {"count": 4}
    log = colony.log_of(job_id)
    assert log.count("4 words, the longest is quick") == 2
    assert "worker python has the task" in log
    assert "worker node has the task" in log

    failed = colony.ended(colony.submit(EXAMPLE, text=""))
    tasks = {task["task_type"]: task for task in failed["tasks"]}
    for name in ("in-python", "in-javascript"):
        assert (tasks[name]["exit_code"], tasks[name]["error_message"]) == (3, "there are no words")


def test_a_web_page_is_a_worker_where_its_origin_is_listed(colony: Colony, pages: str) -> None:
    stranger = pages.replace("127.0.0.1", "localhost")
    colony.page(f"{stranger}/page.html#url={colony.workers_url}&token={quote(TOKEN)}")
    until(lambda: colony.logged("worker_refused"), "the stranger is refused")

    colony.page(f"{pages}/page.html#url={colony.workers_url}&token={quote(TOKEN)}")
    colony.worker(PYTHON)

    job_id = colony.submit(EXAMPLE, text="the quick brown fox")
    assert colony.ended(job_id)["state"] == "COMPLETED"
    assert "worker page has the task" in colony.log_of(job_id)


@pytest.mark.parametrize("command", [PYTHON, NODE], ids=["python", "node"])
def test_a_lost_worker_costs_an_attempt_and_a_cancel_reaches_the_next(colony: Colony, command: list[str]) -> None:
    first = colony.worker(command)
    job_id = colony.count_down()

    first.send_signal(signal.SIGKILL)
    second = colony.worker(command)
    until(lambda: colony.job(job_id)["tasks"][0]["attempt"] == 2, "the task is tried again")
    until(lambda: colony.log_of(job_id).count("has the task") == 2, "the second worker has it")
    colony.call(f"jobs/{job_id}/cancel", b"")

    assert colony.ended(job_id)["state"] == "CANCELLED"
    second.terminate()
    assert second.wait(PATIENCE_S) == 0, "a worker whose task was cancelled has nothing to finish"
    assert "was lost while it had the task" in colony.log_of(job_id)


@pytest.mark.parametrize("command", [PYTHON, NODE], ids=["python", "node"])
def test_a_worker_whose_token_is_wrong_ends_and_says_so(colony: Colony, command: list[str]) -> None:
    ended = subprocess.run(
        [*command, colony.workers_url],
        env={"PATH": os.environ["PATH"], "FORMICARY_WORKERS_TOKEN": "wrong"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert ended.returncode == 1
    assert "the token is not the one of FORMICARY_WORKERS_TOKEN" in ended.stdout
