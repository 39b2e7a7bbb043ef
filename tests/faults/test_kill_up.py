"""``kill -9`` of a whole colony, at every step of a running job."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

#: What a start after ``kill -9`` may take; the quickest counts, because the machine does other things too. Where
#: already an orderly start takes long, it is twice that.
READY_AGAIN_S = 3.0

#: Each task notes its start and end in a ledger; `open`/`close` pairs show what ran when.
TASK = """  - task_type: {name}
    method: SHELL
    dependencies: [{after}]
    script:
      - echo "open {name} $FORMICARY_ATTEMPT" >> {ledger}
      - sleep 0.3
      - echo "close {name} $FORMICARY_ATTEMPT" >> {ledger}
"""


def definition(ledger: Path) -> str:
    """Returns a diamond with a tail: six tasks, two of them beside each other."""
    after = {"a": "", "b": "a", "c": "a", "d": "b, c", "e": "d", "f": "e"}
    tasks = "".join(TASK.format(name=name, after=before, ledger=ledger) for name, before in after.items())
    return f"job_type: ledgered\ntasks:\n{tasks}"


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


def completed(job: Any) -> set[str]:
    return {task["task_type"] for task in job["tasks"] if task["state"] == "COMPLETED"}


def test_a_job_survives_a_kill_at_each_of_its_steps(up: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    up.start()
    orderly_s = [start_again_s(up)]
    job_id = up.submit(definition(ledger))
    done_before: dict[str, int] = {}
    restarts_s = []
    for step in range(1, 13):
        up.until(lambda step=step: len(lines(ledger)) >= step or is_over(up, job_id), f"step {step}")
        known = up.job(job_id)
        if known["state"] == "COMPLETED":
            break
        for name in completed(known):
            done_before.setdefault(name, sum(line.startswith(f"open {name} ") for line in lines(ledger)))
        up.kill()
        restarts_s.append(up.start())
    job = up.job(job_id, wait_s=60)
    assert job["state"] == "COMPLETED", job
    for name, runs in done_before.items():
        assert sum(line.startswith(f"open {name} ") for line in lines(ledger)) == runs, f"{name} ran again"
    assert all(task["error_code"] is None and task["retries_used"] == 0 for task in job["tasks"])
    assert_no_two_at_once(lines(ledger))
    orderly_s.append(start_again_s(up))
    assert min(restarts_s) < max(READY_AGAIN_S, 2 * max(orderly_s)), (restarts_s, orderly_s)


def start_again_s(up: Any) -> float:
    """Stops it in order, and returns the seconds until it served again."""
    assert up.stop() == 0
    return float(up.start())


def is_over(up: Any, job_id: str) -> bool:
    return bool(up.job(job_id)["state"] == "COMPLETED")


def assert_no_two_at_once(ledger: list[str]) -> None:
    """A task's attempt never closes after a later attempt of it opened."""
    newest: dict[str, int] = {}
    for line in ledger:
        kind, name, attempt = line.split()
        if kind == "open":
            assert int(attempt) > newest.get(name, 0), line
            newest[name] = int(attempt)
        else:
            assert int(attempt) == newest[name], f"{line} came after attempt {newest[name]} opened"


def test_nothing_of_a_killed_colony_runs_on(up: Any, tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    up.start()
    up.submit(
        "job_type: lasting\ntasks:\n  - task_type: last\n    method: SHELL\n"
        f"    script: ['(setsid sh -c \"while true; do date +%s%N > {mark}; sleep 0.05; done\") & wait']\n"
    )
    up.until(mark.exists, "the script runs")
    up.kill()
    deadline = time.monotonic() + 40
    before = None
    while mark.read_text() != before:
        before = mark.read_text()
        assert time.monotonic() < deadline, "the script outlived its ant"
        time.sleep(0.3)


def test_a_killed_database_is_waited_out(up: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    up.start()
    job_id = up.submit(definition(ledger))
    up.until(lambda: len(lines(ledger)) >= 2, "the job runs")
    pid = int((up.home / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(pid, signal.SIGKILL)
    up.until(lambda: _state(up, job_id) == "COMPLETED", "the job completes")
    opened = [line for line in lines(ledger) if line.startswith("open")]
    assert len(opened) == 6, lines(ledger)


def _state(up: Any, job_id: str) -> str | None:
    import urllib.error

    try:
        return str(up.job(job_id)["state"])
    except urllib.error.HTTPError as error:
        return None if error.code == 503 and error.headers["Retry-After"] else f"HTTP {error.code}"
