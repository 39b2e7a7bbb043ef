"""The real command line in a home folder of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FORMICARY = Path(sys.executable).parent / "formicary"
#: What one command may take on a machine that does other things too, in seconds.
PATIENCE_S = 90

Formicary = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # Short and readable for others: the embedded server runs as another user where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="formicary-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "home"


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
    return {**bare, "FORMICARY_HOME": str(home), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def formicary(environment: dict[str, str]) -> Formicary:
    """Runs the command line to its end."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [FORMICARY, *arguments],
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def run_job(formicary: Formicary) -> Callable[..., dict[str, Any]]:
    """Runs a definition by ``formicary run -o json`` and returns the job, its tasks under their names."""

    def run(file: Path, *arguments: str | Path, exit_code: int = 0) -> dict[str, Any]:
        ended = formicary("run", file, *arguments, "-o", "json")
        assert ended.returncode == exit_code, f"{ended.stdout}\n{ended.stderr}"
        job: dict[str, Any] = json.loads(ended.stdout)
        job["tasks"] = {task["task_type"]: task for task in job["tasks"]}
        return job

    return run


@pytest.fixture(scope="module")
def artifact(home: Path) -> Callable[[dict[str, Any], str, str], Path]:
    """Finds the link to a task's artifact."""

    def find(job: dict[str, Any], task_type: str, name: str) -> Path:
        task = job["tasks"][task_type]
        names: list[str] = [entry["name"] for entry in task["artifacts"]]
        assert name in names
        return home.joinpath("results", job["id"], task_type, name)

    return find
