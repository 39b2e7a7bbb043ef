"""The example in containers, by the real command line on a real engine: a service, a cache, a faster second run."""

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.engines import SCRIPTS, TestEngine, needs_engine, running_engine

pytestmark = [needs_engine, pytest.mark.timeout(300)]

CONTAINER_CI = Path(__file__).parents[2] / "docs" / "examples" / "container-ci" / "container-ci.yaml"
#: An image of this machine's Python: there is no registry here.
IMAGE = "hostpython:local"
#: What installing the dependencies takes on top, so that doing without it shows, in seconds.
INSTALL_S = 4

RunJob = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    with running_engine() as engine:
        socket = engine.url.removeprefix("unix://")
        subprocess.run([SCRIPTS / "base-image.sh", socket, IMAGE], check=True, capture_output=True)
        yield engine


@pytest.fixture(scope="module")
def environment(home: Path, engine: TestEngine) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
    return {**bare, "FORMICARY_HOME": str(home), "COLUMNS": "200", "DOCKER_HOST": engine.url}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository whose tests need a module that takes a while to install."""
    folder = tmp_path / "repository"
    files = {
        "requirements.txt": "greeting\n",
        "install.sh": f"sleep {INSTALL_S}\nmkdir deps\n"
        "printf 'def greet(name):\\n    return \"hello \" + name\\n' > deps/greeting.py\n",
        "tests/__init__.py": "def main():\n    print('packed')\n",
        "tests/test_greeting.py": "import unittest\n\nimport greeting\n\n\nclass Greeting(unittest.TestCase):\n"
        "    def test_it(self):\n        self.assertEqual(greeting.greet('ant'), 'hello ant')\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "A version")):
        subprocess.run(["git", "-C", folder, *identity, *words], check=True, timeout=30)
    return folder


def seconds(task: dict[str, Any]) -> float:
    started, finished = (datetime.fromisoformat(task[name]) for name in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def test_ci_in_containers_has_a_service_and_a_second_run_that_is_faster(
    run_job: RunJob, repository: Path, engine: TestEngine
) -> None:
    arguments = (f"repository={repository}", f"image={IMAGE}", "install=sh src/install.sh")
    words = [word for argument in arguments for word in ("-p", argument)]

    first, second = (run_job(CONTAINER_CI, *words)["tasks"] for _ in range(2))

    assert {task["state"] for task in (*first.values(), *second.values())} == {"COMPLETED"}
    assert [entry["name"] for entry in first["unit-tests"]["artifacts"]] == ["result/tests.txt"]
    assert [entry["name"] for entry in first["package"]["artifacts"]] == ["app.pyz"]
    assert (first["unit-tests"]["cache"]["result"], first["unit-tests"]["outputs"]["installed"]) == ("miss", True)
    assert (second["unit-tests"]["cache"]["result"], second["unit-tests"]["outputs"]["installed"]) == ("hit", False)
    assert seconds(second["unit-tests"]) < seconds(first["unit-tests"])
    assert engine.containers() == []
    assert engine.networks() == []
