"""The built wheel, installed as a user installs it, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("formicary", "brokers", "executors")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("FORMICARY_", "PYTHON"))}
    return subprocess.run(
        command, cwd=cwd, env=bare, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    ended = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; its dependencies are lent by the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    ended = run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    purelib = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    )
    # Behind the wheel's own packages on the path, and without the checkout: .pth files of a lent folder are not read.
    (purelib / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_the_three_packages_their_types_and_the_schema(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "formicary/store/schema.sql" in names
    assert not [name for name in names if "test_" in name or name.endswith((".pyc", "CONTRACT.txt"))]


def test_the_packaged_schema_is_that_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("formicary/store/schema.sql") == (ROOT / "schema.sql").read_bytes()


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sorted(modules - set(zipfile.ZipFile(wheel).namelist())) == []


def test_the_installed_package_is_the_one_that_is_imported(installed: Path, tmp_path: Path) -> None:
    code = "import formicary, brokers, executors; print(formicary.__file__, brokers.__file__, executors.__file__)"
    ended = run(installed / "python", "-c", code, cwd=tmp_path)
    assert [Path(file).is_relative_to(installed.parent) for file in ended.stdout.split()] == [True, True, True]


def test_the_installed_command_helps_and_names_its_commands(installed: Path, tmp_path: Path) -> None:
    ended = run(installed / "formicary", "--help", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for command in ("run", "up", "queen", "ant", "job", "definition", "settings"):
        assert command in ended.stdout


@pytest.mark.parametrize("example", sorted((ROOT / "docs" / "examples").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_the_installed_command_finds_no_fault_with_an_example(installed: Path, tmp_path: Path, example: Path) -> None:
    ended = run(installed / "formicary", "definition", "lint", example, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_installed_command_runs_a_job(installed: Path, home: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "job_type: one\ntasks: [{task_type: only, method: SHELL, script: [test 4 -gt 3]}]\n", encoding="utf-8"
    )
    command = (installed / "formicary", "run", job)
    ended = run("env", f"FORMICARY_HOME={home}", *command, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
