"""What tasks can do to a colony: endless lines, bytes that are no text, forks, signals, tracebacks, secrets."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)


def shell(*lines: str, **keys: object) -> str:
    """Returns a job of one SHELL task."""
    task = {"task_type": "t", "method": "SHELL", "script": list(lines), **keys}
    return json.dumps({"job_type": "scripted", "tasks": [task]})


def ended(up: Any, definition: str, wait_s: int = 60, **params: object) -> Any:
    return up.job(up.submit(definition, **params), wait_s=wait_s)


def test_output_that_is_no_text_becomes_replacement_characters(served: Any) -> None:
    job = ended(served, shell(r"printf 'caf\351 \377\376 ok\n'", r"printf 'a\000b\r\n' >&2", "printf ☕"))

    assert job["state"] == "COMPLETED"
    assert sorted(served.lines(job["id"])) == sorted(["caf\ufffd \ufffd\ufffd ok", "ab", "☕"])


def test_a_line_of_a_gigabyte_takes_bounded_memory_and_the_job_goes_on(served: Any) -> None:
    assert ended(served, shell("true"))["state"] == "COMPLETED"
    before_kib = peak_kib(served)

    job = ended(served, shell("head -c 1000000000 /dev/zero | tr '\\0' x", "echo; echo '::set-output name=done::1'"))

    assert (job["state"], job["tasks"][0]["outputs"]) == ("COMPLETED", {"done": 1})
    assert peak_kib(served) - before_kib < 200 * 1024
    lines = served.lines(job["id"])
    assert max(map(len, lines)) < 100_000
    assert "log limit" in lines[-1]


def peak_kib(up: Any) -> int:
    status = Path(f"/proc/{up.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_a_script_that_forks_and_hangs_is_stopped_with_all_it_started(served: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    fork = f"trap '' TERM; echo $$ >> {pids}; while :; do sleep 0.1; done"
    script = [f'(setsid sh -c "{fork}" >/dev/null 2>&1 &)', f'sh -c "{fork}" & wait']
    began = time.monotonic()

    job = ended(served, shell(*script, timeout="1s"))

    assert job["tasks"][0]["error_code"] == "ERR_TASK_TIMEOUT"
    assert time.monotonic() - began < 60
    left = [int(pid) for pid in pids.read_text().replace("$$", "").split() if Path(f"/proc/{pid}").exists()]
    assert left == []


def test_children_that_outlive_their_script_are_ended_and_reaped(served: Any, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    job = ended(
        served,
        shell(f"(setsid sh -c 'echo $$ > {pid_file}; exec sleep 600' &)", f"while ! test -s {pid_file}; do :; done"),
    )

    assert job["state"] == "COMPLETED"
    served.until(lambda: not Path(f"/proc/{pid_file.read_text().strip()}").exists(), "the child is gone")
    assert zombies_of(served.process.pid) == []


def zombies_of(pid: int) -> list[str]:
    """Returns the dead children of a process, and of its children, that nobody has waited for."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.split()[0] == "Z" and int(rest.split()[1]) == pid:
            found.append(name)
    return found


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("SEGV", 11), ("TERM", 15)])
def test_an_end_by_signal_is_told_from_an_exit_code(served: Any, name: str, number: int) -> None:
    by_signal = ended(served, shell(f"kill -{name} $$"))["tasks"][0]
    by_code = ended(served, shell(f"exit {128 + number}"))["tasks"][0]

    assert by_signal["error_code"] == "ERR_SIGNAL"
    assert name in by_signal["error_message"]
    assert (by_code["error_code"], by_code["exit_code"]) == ("ERR_EXIT_CODE", 128 + number)


def test_a_function_that_raises_shows_its_own_frames_only(up: Any, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("def fail(text):\n    raise ValueError('no ' + text)\n")
    up.flags = ["--python-path", str(tmp_path)]
    up.start()
    task = {"task_type": "t", "method": "PYTHON", "function": "failing:fail", "args": ["luck"]}

    job = ended(up, json.dumps({"job_type": "failing", "tasks": [task]}))

    lines = up.lines(job["id"])
    assert (job["tasks"][0]["exit_code"], job["tasks"][0]["error_code"]) == (1, "ERR_EXIT_CODE")
    assert lines[-1] == "ValueError: no luck"
    assert [line for line in lines if "File " in line] == [f'  File "{tmp_path}/failing.py", line 2, in fail']


def test_an_answer_larger_than_an_output_may_be_is_no_output_and_says_so(served: Any) -> None:
    job = run_against(served, b'{"a": "' + b"x" * 3_000_000 + b'"}', b"application/json")

    task = job["tasks"][0]
    assert "body" not in task["outputs"]
    assert "body" in str(task["error_message"]) or any("body" in line for line in served.lines(job["id"]))


def run_against(up: Any, body: bytes, kind: bytes) -> Any:
    """Returns the end of a job that asks a server which gives ``body``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        task = {"task_type": "t", "method": "HTTP_GET", "url": f"http://127.0.0.1:{port}/"}
        definition = json.dumps({"job_type": "asking", "tasks": [task]})
        async with server:
            return await asyncio.to_thread(ended, up, definition)

    return asyncio.run(run())


def test_outputs_beyond_the_limit_fail_the_task_naming_the_key(served: Any) -> None:
    job = ended(served, shell("printf 'huge=%s\\n' $(head -c 300000 /dev/zero | tr '\\0' x) >> $FORMICARY_OUTPUT"))

    task = job["tasks"][0]
    assert (job["state"], task["error_code"]) == ("FAILED", "ERR_VALIDATION")
    assert "huge" in task["error_message"]


def test_a_spec_beyond_the_limit_fails_the_task_naming_it(served: Any) -> None:
    job = ended(served, shell("echo {{ text }}", "echo {{ text }}", "echo {{ text }}"), text="x" * 200_000)

    assert job["state"] == "FAILED"
    assert job["tasks"][0]["error_code"] in ("ERR_VALIDATION", "ERR_TEMPLATE")
    assert job["tasks"][0]["attempt"] == 0


def test_ten_thousand_params_and_any_text_pass_through(served: Any) -> None:
    params: dict[str, Any] = {f"k{number}": number for number in range(10_000)} | {
        "name": "Ünï \u202e 🐜 \u2028 'quoted' $(id) `id`"
    }

    job = ended(served, shell("echo {{ name | sh }}"), **params)

    assert job["state"] == "COMPLETED"
    assert served.lines(job["id"]) == [params["name"]]
    assert job["params"] == params


def test_secrets_do_not_show_in_logs_nor_messages(served: Any) -> None:
    definition = shell(
        "printf 'to'; sleep 0.2; printf 'psecret\\n'; echo topsecret | rev | rev >&2; exit 3",
        variables={"password": {"value": "topsecret", "secret": True}},
    )
    answer = served.exchange("POST", "/definitions", definition.encode())
    assert answer.status in (201, 422), answer
