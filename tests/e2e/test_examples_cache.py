"""The example with a cache: its second run is faster, and says why."""

import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

CACHED_TESTS = Path(__file__).parents[2] / "docs" / "examples" / "cached-tests" / "cached-tests.yaml"

RunJob = Callable[..., dict[str, Any]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose tests need a package that has to be built."""
    greeting = tmp_path / "greeting"
    files = {
        greeting / "greeting/__init__.py": "def greet(name):\n    return 'hello ' + name\n",
        greeting / "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        '[project]\nname = "greeting"\nversion = "1.0"\n',
        tmp_path / "repository/requirements.txt": f"greeting @ {greeting.as_uri()}\n",
        tmp_path / "repository/tests/__init__.py": "",
        tmp_path / "repository/tests/test_greeting.py": "import unittest\n\nimport greeting\n\n\n"
        "class Greeting(unittest.TestCase):\n"
        "    def test_it(self):\n        self.assertEqual(greeting.greet('ant'), 'hello ant')\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    commit(tmp_path / "repository", "init", "--quiet")
    return tmp_path / "repository"


def commit(folder: Path, *first: str) -> None:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for words in (first, ("add", "--all"), ("commit", "--quiet", "--message", "A version")):
        if words:
            subprocess.run(["git", "-C", folder, *identity, *words], check=True, timeout=30)


def seconds(task: dict[str, Any]) -> float:
    started, finished = (datetime.fromisoformat(task[name]) for name in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def test_cached_tests_install_once_and_the_second_run_is_faster(run_job: RunJob, repository: Path) -> None:
    def run() -> dict[str, Any]:
        options = "--no-index --no-build-isolation"
        arguments = (f"repository={repository}", f"python={sys.executable}", f"pip_options={options}")
        job = run_job(CACHED_TESTS, *(word for argument in arguments for word in ("-p", argument)))
        task: dict[str, Any] = job["tasks"]["unit-tests"]
        return task

    first, second = run(), run()
    assert (first["cache"]["result"], first["outputs"]["installed"]) == ("miss", True)
    assert first["cache"]["stored_bytes"] > 0
    assert (second["cache"]["result"], second["outputs"]["installed"]) == ("hit", False)
    assert second["cache"]["restored_bytes"] == first["cache"]["stored_bytes"]
    assert seconds(second) < seconds(first) / 2

    with (repository / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    commit(repository)
    third = run()
    assert (third["cache"]["result"], third["cache"]["restored_key"]) == ("restored", first["cache"]["key"])
    assert third["outputs"]["installed"] is True
