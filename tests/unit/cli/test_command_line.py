"""The command line as users meet it: quick help, exit codes, one line an error, one document on stdout."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FORMICARY = Path(sys.executable).parent / "formicary"
#: What ``--help`` may take of processor time, beside a Python that does nothing: importing the colony takes more.
HELP_RATIO = 16


def formicary(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
    return subprocess.run(
        [FORMICARY, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=bare | environment,
    )


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1 and "Traceback" not in text


def test_help_costs_little_more_than_python_itself() -> None:
    bare, ours = [], []
    for _ in range(5):  # by turns, so that a busy machine is busy for both
        start = processor_seconds()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(processor_seconds() - start)
        assert formicary("--help").returncode == 0
        ours.append(processor_seconds() - start - bare[-1])

    assert min(ours) < HELP_RATIO * min(bare)


def processor_seconds() -> float:
    """Returns what the children of this process have taken: it does not depend on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy() -> None:
    program = "import sys; from formicary.cli.main import run_command; run_command(['--help']); print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    heavy = {"aiohttp", "asyncpg", "msgspec", "rich", "structlog", "yaml", "jinja2", "prometheus_client", "asyncio"}
    assert not heavy & set(listed)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--version",),
        ("up", "--help"),
        ("queen", "--help"),
        ("ant", "--help"),
        ("ant", "list", "--help"),
        ("run", "--help"),
        ("job", "logs", "--help"),
        ("definition", "apply", "--help"),
    ],
)
def test_every_command_explains_itself(arguments: tuple[str, ...]) -> None:
    ended = formicary(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("surprise",),
        ("--surprise",),
        ("job", "submit"),
        ("job", "submit", "x", "-p", "novalue"),
        ("job", "list", "--limit", "0"),
        ("job", "show", "x", "-o", "xml"),
        ("job", "show", ""),
        ("job", "cancel", ".."),
        ("definition", "show", "."),
        ("ant", "--slots", "0"),
        ("run", "/nowhere/job.yaml"),
        ("definition", "lint", "/nowhere/job.yaml"),
        ("up", "--listen", "nonsense"),
        ("up", "--listen", "0.0.0.0:7777"),
        ("up", "--broker-url", "amqp://x"),
        ("job", "list", "--server", "nonsense"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = formicary(*arguments, FORMICARY_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert is_one_line(ended.stderr), ended.stderr


def test_a_server_that_is_not_there_is_one_line_and_exit_code_3() -> None:
    for arguments in (("job", "list"), ("ant", "list"), ("job", "wait", "x"), ("job", "logs", "x", "-f")):
        ended = formicary(*arguments, FORMICARY_SERVER="http://127.0.0.1:1")
        assert ended.returncode == 3
        assert is_one_line(ended.stderr)
        assert "http://127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize("arguments", [("settings",), ("--help",), ("definition", "schema")])
def test_output_that_cannot_be_written_is_one_line_and_no_success(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([FORMICARY, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert ended.returncode == 2
    assert is_one_line(ended.stderr), ended.stderr


def test_an_interrupt_while_the_command_line_is_imported_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = subprocess.run(
        [sys.executable, "-c", "from formicary.cli.entry import main; main()"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")


def test_a_run_gives_a_database_up_that_is_not_there(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("job_type: x\ntasks: [{task_type: a, method: SHELL, script: ['true']}]\n")
    away = {"FORMICARY_HOME": str(tmp_path / "home"), "FORMICARY_DATABASE_URL": "postgresql://a@127.0.0.1:1/a"}

    ended = formicary("run", str(job), "--log-level", "error", **away)

    assert ended.returncode == 3
    assert is_one_line(ended.stderr), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_waits_for_its_database_stops_on_one_signal(number: signal.Signals, tmp_path: Path) -> None:
    url = "postgresql://a@127.0.0.1:1/a"
    command = [str(FORMICARY), "up", "--home", str(tmp_path), "--database-url", url, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert any("database_away" in line for line in server.stderr)

        server.send_signal(number)
        try:
            assert server.wait(40) == 0
        finally:
            server.kill()


def test_an_address_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        ended = formicary("up", "--home", str(tmp_path / "home"), "--listen", address)

    assert ended.returncode == 2
    assert is_one_line(ended.stderr), ended.stderr
    assert f"cannot listen on {address}" in ended.stderr
    assert not (tmp_path / "home" / "postgres").exists()


def test_something_else_than_formicary_behind_the_address_is_said() -> None:
    program = (
        "import http.server as s, threading as t; h = s.HTTPServer(('127.0.0.1', 0), s.BaseHTTPRequestHandler); "
        "print(h.server_port, flush=True); h.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as other:
        assert other.stdout is not None
        port = other.stdout.readline().strip()
        ended = formicary("job", "list", FORMICARY_SERVER=f"http://127.0.0.1:{port}")
        other.kill()

    assert ended.returncode == 3
    assert is_one_line(ended.stderr)


def test_settings_are_one_document_with_secrets_hidden() -> None:
    ended = formicary("settings", "-o", "json", FORMICARY_TOKEN="s3cret", FORMICARY_LEASE_S="4")

    shown = json.loads(ended.stdout)
    assert shown["FORMICARY_LEASE_S"] == 4
    assert shown["FORMICARY_TOKEN"] == "***"
    assert "FORMICARY_HOME" in shown


def test_lint_lists_every_mistake_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("job_type: x\nsurprise: 1\ntasks:\n  - {task_type: a, method: SHEL}\n")

    ended = formicary("definition", "lint", str(file))
    as_json = formicary("definition", "lint", str(file), "-o", "json")

    assert ended.returncode == as_json.returncode == 2
    lines = ended.stderr.splitlines()
    assert len(lines) == len(json.loads(as_json.stdout)["errors"]) >= 2
    assert all(line.startswith(f"{file}:") for line in lines)


def test_a_graph_is_mermaid_or_json(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "job_type: x\ntasks:\n  - {task_type: a, method: SHELL, script: [x]}\n"
        "  - {task_type: b, method: SHELL, script: [x], dependencies: [a]}\n"
    )

    assert formicary("definition", "graph", str(file)).stdout.startswith("flowchart")
    assert json.loads(formicary("definition", "graph", str(file), "-o", "json").stdout) == {
        "job_type": "x",
        "nodes": ["a", "b"],
        "edges": [{"from": "a", "to": "b", "kind": "data"}],
    }
    assert formicary("definition", "graph", str(file), "--format", "png").returncode == 2


def test_the_schema_is_one_document() -> None:
    assert json.loads(formicary("definition", "schema").stdout)["type"] == "object"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{FORMICARY} definition schema | head -c 1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
