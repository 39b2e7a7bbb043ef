"""``formicary up`` and ``run`` as processes: who holds the home, signals, and the commands against a real server."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FORMICARY = Path(sys.executable).parent / "formicary"
PATIENCE_S = 60.0

QUICK = 'job_type: quick\ntasks:\n  - {task_type: say, method: SHELL, script: ["echo hello {{ name }}"]}\n'
SLOW = (
    "job_type: slow\ntasks:\n  - {task_type: nap, method: SHELL, script: [echo napping, sleep 600]}\n"
    "  - {task_type: tidy, method: SHELL, always_run: true, script: [echo tidied]}\n"
)


class Place:
    """A home folder with files of jobs beside it, and the processes that tests start there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.quick, self.slow = folder / "quick.yaml", folder / "slow.yaml"
        self.quick.write_text(QUICK)
        self.slow.write_text(SLOW)
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
        self.environment = bare | {
            "FORMICARY_HOME": str(self.home),
            "FORMICARY_LOG_FORMAT": "json",
            "FORMICARY_LOGS_ARCHIVE_AFTER_S": "0",
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Starts a command whose output is read from pipes."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [FORMICARY, *arguments], env=self.environment, stdout=pipe, stderr=pipe, text=True, stdin=subprocess.DEVNULL
        )
        self.started.append(process)
        return process

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def up(self) -> subprocess.Popen[bytes]:
        """Starts ``up`` on a free port and returns once it serves; the commands then talk to it."""
        ready = self.folder / "ready"
        with (self.folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [FORMICARY, "up", "--listen", "127.0.0.1:0", "--slots", "4", "--ready-file", ready],
                env=self.environment,
                stderr=log,
            )
        until(ready.exists, (self.folder / "up.log").read_text)
        holder = json.loads((self.home / "lock").read_text())
        self.environment["FORMICARY_SERVER"] = holder["listen"]
        return process


def until(claim: Callable[[], bool], story: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, story()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    # Short and open to others: the embedded server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="formicary-") as folder:
        Path(folder).chmod(0o755)
        place = Place(Path(folder))
        yield place
        for process in place.started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Place]:
    process = place.up()
    yield place
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert not (place.folder / "ready").exists()


def document(ended: subprocess.CompletedProcess[str], exit_code: int = 0) -> Any:
    assert ended.returncode == exit_code, ended.stderr
    return json.loads(ended.stdout)


def test_a_second_up_says_who_holds_the_home_and_exits_2(served: Place) -> None:
    ended = served.call("up", "--listen", "127.0.0.1:0")
    assert ended.returncode == 2
    assert "is held by process" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_run_on_the_home_of_an_up_submits_to_it_and_says_so(served: Place) -> None:
    ended = served.call("run", served.quick, "-p", "name=you", "-o", "json")

    job = document(ended)
    assert job["state"] == "COMPLETED"
    assert "submitting to it at http://127.0.0.1:" in ended.stderr
    assert document(served.call("job", "show", job["id"], "-o", "json")) == job


def test_people_see_what_caches_and_earlier_results_did(served: Place) -> None:
    file = served.folder / "thrifty.yaml"
    file.write_text(
        "job_type: thrifty\ntasks:\n"
        "  - {task_type: once, method: SHELL, memoize: {key: k}, script: ['true'], on_completed: often}\n"
        "  - {task_type: often, method: SHELL, cache: {key: k, paths: [deps]}, script: [touch deps]}\n"
    )
    first = document(served.call("run", file, "-o", "json"))
    second = served.call("run", file).stdout

    assert "once COMPLETED  (the result of an earlier job)" in second
    assert "often | cache 'k': restored, 1 entry, " in second
    job_id = document(served.call("job", "list", "--job-type", "thrifty", "-o", "json"))["items"][0]["id"]
    shown = served.call("job", "show", job_id).stdout
    assert f"taken from job {first['id']}, attempt 1" in shown
    assert "cache hit, " in shown
    assert "stored " in served.call("job", "show", first["id"]).stdout


def test_output_that_was_moved_to_the_artifact_store_is_read_like_any_other(served: Place) -> None:
    job = document(served.call("run", served.quick, "-p", "name=all", "-o", "json"))
    until(lambda: any((served.home / "artifacts/logs" / job["id"]).glob("1-*.jsonl.zst")), lambda: "nothing was moved")

    assert served.call("job", "logs", job["id"], "--task", "say").stdout == "hello all\n"
    assert [line["seq"] for line in document(served.call("job", "logs", job["id"], "-n", "1", "-o", "json"))] == [1]
    assert served.call("job", "logs", job["id"], "-f", "--tail", "0").stdout == ""


def test_a_job_is_applied_submitted_waited_for_and_read(served: Place) -> None:
    saved = document(served.call("definition", "apply", served.quick, "-o", "json"))
    assert saved["job_type"] == "quick"
    job = document(served.call("job", "submit", "quick", "-p", "name=me", "-o", "json"))

    ended = document(served.call("job", "wait", job["id"], "-o", "json"))
    lines = document(served.call("job", "logs", job["id"], "-f", "-o", "json"))

    assert ended["state"] == "COMPLETED"
    assert [line["text"] for line in lines] == ["hello me"]
    assert "hello me" in served.call("job", "logs", job["id"]).stdout
    assert job["id"] in [item["id"] for item in document(served.call("job", "list", "-o", "json"))["items"]]
    assert document(served.call("definition", "list", "-o", "json"))["items"]
    assert served.call("definition", "show", "quick").stdout.strip() == QUICK.strip()
    (ant,) = document(served.call("ant", "list", "-o", "json"))["items"]
    assert ant["slots"] == 4


def scraped(place: Place) -> dict[str, float]:
    """Returns the metrics of the server by name and labels."""
    with urllib.request.urlopen(f"{place.environment['FORMICARY_SERVER']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_metrics_tell_of_a_job_that_ran(served: Place) -> None:
    before = scraped(served)
    assert served.call("run", served.quick, "-p", "name=you").returncode == 0
    after = scraped(served)

    for name in (
        "formicary_jobs_submitted_total",
        'formicary_jobs_ended_total{state="COMPLETED"}',
        'formicary_tasks_ended_total{state="COMPLETED"}',
        "formicary_tasks_dispatched_total",
        "formicary_log_lines_written_total",
    ):
        assert after[name] == before[name] + 1, name
    assert after['formicary_jobs_ended_total{state="FAILED"}'] == before['formicary_jobs_ended_total{state="FAILED"}']
    for table in ("jobs", "tasks", "history"):
        assert after[name := f'formicary_journal_rows_total{{table="{table}"}}'] > before[name], name
    assert after["formicary_journal_commit_seconds_count"] > before["formicary_journal_commit_seconds_count"]


def test_metrics_tell_what_runs_and_what_waits(served: Place) -> None:
    served.call("definition", "apply", served.slow)
    jobs = [document(served.call("job", "submit", "slow", "-o", "json"))["id"] for _ in range(5)]

    gauges = ("formicary_jobs_live", "formicary_tasks_in_flight", "formicary_tasks_waiting", "formicary_ants_live")
    until(lambda: [scraped(served)[name] for name in gauges] == [5, 4, 1, 1], lambda: str(scraped(served)))

    for job_id in jobs:
        assert served.call("job", "cancel", job_id).returncode == 0
    until(lambda: [scraped(served)[name] for name in gauges] == [0, 0, 0, 1], lambda: str(scraped(served)))


def test_a_job_that_does_not_complete_is_exit_code_1_and_a_refusal_2(served: Place) -> None:
    served.call("definition", "apply", served.slow)
    job = document(served.call("job", "submit", "slow", "-o", "json"))

    assert served.call("job", "resume", job["id"]).returncode == 2
    assert served.call("job", "cancel", job["id"]).returncode == 0
    assert document(served.call("job", "wait", job["id"], "-o", "json"), exit_code=1)["state"] == "CANCELLED"
    assert served.call("job", "cancel", job["id"]).returncode == 2
    assert served.call("job", "show", "none").returncode == 2
    assert served.call("job", "submit", "none").returncode == 2


def test_interrupting_a_run_cancels_its_job_with_the_clean_up(place: Place) -> None:
    process = place.start("run", place.slow, "--home", place.folder / "other", "-o", "json")
    assert process.stderr is not None
    assert any("napping" in line for line in process.stderr)

    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    job = json.loads(stdout)
    assert job["state"] == "CANCELLED"
    assert [task["state"] for task in job["tasks"]] == ["CANCELLED", "COMPLETED"]


def test_interrupting_a_run_twice_leaves_at_once(place: Place) -> None:
    stubborn = place.folder / "stubborn.yaml"
    stubborn.write_text(SLOW.replace("echo napping", "trap '' TERM; echo napping"))
    process = place.start("run", stubborn, "--home", place.folder / "sixth")
    assert process.stdout is not None
    assert process.stderr is not None
    assert any("napping" in line for line in process.stdout)

    process.send_signal(signal.SIGINT)
    assert any("interrupt again" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)

    assert process.wait(40) == 130


def test_the_job_of_a_killed_run_is_cancelled_by_the_next(place: Place) -> None:
    home = place.folder / "third"
    process = place.start("run", place.slow, "--home", home)
    assert process.stdout is not None
    assert any("napping" in line for line in process.stdout)
    (orphan,) = (home / "runs").iterdir()
    process.kill()
    process.wait()

    ended = place.call("run", place.quick, "-p", "name=x", "--home", home, "--log-level", "warning")

    assert ended.returncode == 0, ended.stderr
    assert "orphan_cancelled" in ended.stderr
    assert orphan.name in ended.stderr
    assert list((home / "runs").iterdir()) == []


def test_a_run_beside_another_run_takes_a_fresh_home(place: Place) -> None:
    home = place.folder / "fourth"
    first = place.start("run", place.slow, "--home", home)
    assert first.stdout is not None
    assert any("napping" in line for line in first.stdout)

    second = place.call("run", place.quick, "-p", "name=x", "--home", home)

    first.kill()
    assert second.returncode == 0, second.stderr
    assert "taking a fresh home" in second.stderr
    fresh = Path(second.stderr.split("fresh home, ")[1].split()[0])
    assert not fresh.exists()


def test_a_definition_with_mistakes_is_listed_and_nothing_is_started(place: Place) -> None:
    file = place.folder / "bad.yaml"
    file.write_text("job_type: x\nsurprise: 1\ntasks: []\n")

    ended = place.call("run", file, "--home", place.folder / "never")

    assert ended.returncode == 2
    assert all(line.startswith(f"{file}:") for line in ended.stderr.splitlines())
    assert not (place.folder / "never").exists()


def test_missing_params_are_named(place: Place) -> None:
    file = place.folder / "params.yaml"
    file.write_text(QUICK.replace("job_type: quick", "job_type: params\nrequired_params: [name]"))

    ended = place.call("run", file, "--home", place.folder / "fifth")

    assert ended.returncode == 2
    assert "params.name" in ended.stderr
