"""Every job of docs/examples, run as a newcomer runs it, with what it should have made."""

import csv
import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ETL = EXAMPLES / "etl"
CI_PIPELINE = EXAMPLES / "ci-pipeline" / "ci-pipeline.yaml"
CLEANUP = EXAMPLES / "cleanup-on-failure" / "cleanup-on-failure.yaml"

RunJob = Callable[..., dict[str, Any]]
FindArtifact = Callable[[dict[str, Any], str, str], Path]


def states(job: dict[str, Any]) -> dict[str, str]:
    return {name: task["state"] for name, task in job["tasks"].items()}


def revenue_cents(orders: Path) -> int:
    """Sums the orders that are in order, independently of the example's own code."""
    with orders.open(newline="", encoding="utf-8") as file:
        return sum(
            int(row["quantity"]) * int(row["unit_cents"])
            for row in csv.DictReader(file)
            if row["region"] and int(row["quantity"]) > 0 and row["unit_cents"].isdigit()
        )


def run_etl(run_job: RunJob, *arguments: str) -> dict[str, Any]:
    return run_job(ETL / "etl.yaml", "-p", f"code={ETL}", "-p", f"python={sys.executable}", *arguments)


def test_etl_turns_100000_orders_into_a_report_with_the_right_sum(run_job: RunJob, artifact: FindArtifact) -> None:
    job = run_etl(run_job)
    tasks = job["tasks"]
    assert states(job) == dict.fromkeys(tasks, "COMPLETED") | {"quarantine": "SKIPPED"}
    assert tasks["extract"]["outputs"] == {"row_count": 100_000}
    assert tasks["clean"]["outputs"] == {"clean_count": 99_334, "rejected_count": 666}
    assert tasks["publish"]["outputs"]["total_cents"] == revenue_cents(artifact(job, "extract", "orders.csv"))
    assert "99334 of 100000 orders" in artifact(job, "publish", "result/report.md").read_text(encoding="utf-8")


def test_etl_routes_bad_data_to_quarantine_by_exit_code_and_completes(run_job: RunJob, artifact: FindArtifact) -> None:
    job = run_etl(run_job, "-p", "max_rejected_percent=0.1", "-p", "rows=3000")
    assert (job["state"], job["tasks"]["validate"]["exit_code"]) == ("COMPLETED", 3)
    assert states(job)["publish"] == "SKIPPED"
    assert states(job)["quarantine"] == "COMPLETED"
    lines = artifact(job, "quarantine", "result/quarantine.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 20


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a small package, its tests and a build configuration."""
    folder = tmp_path / "repository"
    files = {
        "app/__init__.py": "def double(number):\n    return number * 2\n",
        "tests/__init__.py": "",
        "tests/unit/__init__.py": "",
        "tests/unit/test_double.py": "import unittest\n\nfrom app import double\n\n\nclass Double(unittest.TestCase):\n"
        "    def test_it(self):\n        self.assertEqual(double(4), 8)\n",
        "tests/integration/__init__.py": "",
        "tests/integration/test_run.py": "import subprocess\nimport sys\nimport unittest\n\n\n"
        "class Run(unittest.TestCase):\n"
        "    def test_it(self):\n        code = 'import app; print(app.double(21))'\n"
        "        self.assertEqual(subprocess.check_output([sys.executable, '-c', code]), b'42\\n')\n",
        "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        '[project]\nname = "app"\nversion = "1.2.3"\nrequires-python = ">=3.11"\n',
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    git(folder, "init", "--quiet")
    commit(folder, "A first version")
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    ended = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True, timeout=30
    )
    return ended.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def run_ci(run_job: RunJob, repository: Path, exit_code: int = 0) -> dict[str, Any]:
    ruff = Path(sys.executable).parent / "ruff"
    return run_job(
        CI_PIPELINE,
        *("-p", f"repository={repository}", "-p", f"python={sys.executable}"),
        *("-p", f"linter={ruff} check --isolated --no-cache"),
        exit_code=exit_code,
    )


def test_ci_pipeline_tests_a_git_repository_and_builds_an_installable_wheel(
    run_job: RunJob, repository: Path, artifact: FindArtifact
) -> None:
    job = run_ci(run_job, repository)
    assert set(states(job).values()) == {"COMPLETED"}
    assert job["tasks"]["checkout"]["outputs"]["commit"] == git(repository, "rev-parse", "HEAD")
    wheel = artifact(job, "package", "dist/app-1.2.3-py3-none-any.whl")
    assert wheel.read_bytes()[:2] == b"PK"


def test_ci_pipeline_with_a_red_test_fails_and_packages_nothing(run_job: RunJob, repository: Path) -> None:
    (repository / "app/__init__.py").write_text("def double(number):\n    return number * 3\n", encoding="utf-8")
    commit(repository, "Break it")
    job = run_ci(run_job, repository, exit_code=1)
    assert job["state"] == "FAILED"
    assert states(job)["unit-tests"] == "FAILED"
    assert (states(job)["package"], states(job)["verify"]) == ("SKIPPED", "SKIPPED")


def test_python_fan_counts_the_primes_below_200000(run_job: RunJob) -> None:
    folder = EXAMPLES / "python-fan"
    job = run_job(folder / "python-fan.yaml", "--python-path", folder, "-p", "limit=200000")
    assert job["tasks"]["total"]["outputs"]["result"] == {"limit": 200_000, "primes": 17_984}


@pytest.mark.parametrize(("broken", "exit_code"), [("yes", 1), ("no", 0)])
def test_cleanup_gives_the_lock_back_whatever_happened(
    run_job: RunJob, tmp_path: Path, broken: str, exit_code: int
) -> None:
    workspace = tmp_path / "work space"
    workspace.mkdir()
    job = run_job(CLEANUP, "-p", f"workspace={workspace}", "-p", f"broken={broken}", exit_code=exit_code)
    assert states(job)["unlock"] == "COMPLETED"
    assert not (workspace / "lock").exists()


def test_cleanup_rolls_a_failed_migration_back_after_one_retry_and_the_job_fails(
    run_job: RunJob, tmp_path: Path
) -> None:
    job = run_job(CLEANUP, "-p", f"workspace={tmp_path}", exit_code=1)
    assert (job["state"], job["error_code"]) == ("FAILED", "ERR_EXIT_CODE")
    assert (job["tasks"]["migrate"]["attempt"], job["tasks"]["migrate"]["exit_code"]) == (2, 9)
    assert (states(job)["rollback"], states(job)["announce"]) == ("COMPLETED", "SKIPPED")
    assert (tmp_path / "schema.txt").read_text(encoding="utf-8") == "version 1\n"
    assert "attempt 2" in (tmp_path / "failed-migration.log").read_text(encoding="utf-8")


def test_hourly_report_makes_a_task_per_hour_and_counts_right(
    run_job: RunJob, tmp_path: Path, artifact: FindArtifact
) -> None:
    log = tmp_path / "access.log"
    log.write_text(
        "".join(
            f"2024-05-01T{hour:02}:{minute:02}:00Z GET /cart {503 if minute < hour - 7 else 200}\n"
            for hour in range(8, 12)
            for minute in range(hour)
        ),
        encoding="utf-8",
    )
    parameters = ("-p", f"log={log}", "-p", "first_hour=8", "-p", "last_hour=11")
    job = run_job(EXAMPLES / "hourly-report" / "hourly-report.yaml", *parameters)
    assert [name for name in job["tasks"] if name.startswith("hour-")] == ["hour-08", "hour-09", "hour-10", "hour-11"]
    report = artifact(job, "report", "result/report.csv").read_text(encoding="utf-8")
    assert report.splitlines() == ["hour,requests,errors", "08,8,1", "09,9,2", "10,10,3", "11,11,4"]


def run_split(run_job: RunJob, source: Path, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    definition = EXAMPLES / "split-encode-join" / "split-encode-join.yaml"
    return run_job(definition, "-p", f"source={source}", *arguments, exit_code=exit_code)


def test_split_encode_join_gives_the_file_back_from_pieces_that_were_encoded_apart(
    run_job: RunJob, tmp_path: Path, artifact: FindArtifact
) -> None:
    source = tmp_path / "a film.raw"
    source.write_bytes(b"".join(b"frame %d of the film\n" % number for number in range(20_000)))

    job = run_split(run_job, source, "-p", "pieces=3")

    tasks = job["tasks"]
    encoders = ["encode-000", "encode-001", "encode-002"]
    assert states(job) == dict.fromkeys(["split", *encoders, "join", "verify"], "COMPLETED")
    assert {name: [each["name"] for each in tasks[name]["artifacts"]] for name in encoders} == {
        name: [f"encoded/{name[-3:]}"] for name in encoders
    }
    pieces = [gzip.decompress(artifact(job, name, f"encoded/{name[-3:]}").read_bytes()) for name in encoders]
    assert all(0 < len(piece) < source.stat().st_size for piece in pieces)
    assert b"".join(pieces) == source.read_bytes()
    joined = artifact(job, "join", "joined")
    assert gzip.decompress(joined.read_bytes()) == source.read_bytes()
    assert tasks["join"]["outputs"]["size_bytes"] == sum(tasks[name]["outputs"]["size_bytes"] for name in encoders)


def test_split_encode_join_fails_where_the_joined_file_is_another_one(run_job: RunJob, tmp_path: Path) -> None:
    source = tmp_path / "film"
    source.write_bytes(b"abcdefgh" * 100)
    job = run_split(run_job, source, "-p", "pieces=2", "-p", "decoder=head -c 5", exit_code=1)
    assert (states(job)["join"], states(job)["verify"]) == ("COMPLETED", "FAILED")
