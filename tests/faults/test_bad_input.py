"""Bad definitions, through the whole product: problem documents from the API, a line per mistake from commands."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)

TASK = "  - {task_type: a, method: SHELL, script: ['true']}\n"
HEAD = f"job_type: bad\ntasks:\n{TASK}"


def scripted(line: str) -> str:
    return f"job_type: bad\ntasks:\n  - {{task_type: a, method: SHELL, script: ['echo {line}']}}\n"


def laughs() -> str:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    return "\n".join(["a0: &a0 [ha, ha]", *levels, HEAD])


#: Name -> document, how many mistakes it has, a word of the first.
DOCUMENTS: dict[str, tuple[str | bytes, int, str]] = {
    "malformed": ("job_type: [", 1, "YAML"),
    "empty": ("", 1, "empty"),
    "not a mapping": ("- a\n- b\n", 1, "mapping"),
    "not UTF-8": (b"job_type: \xff\xfe\n", 1, "UTF-8"),
    "a NUL": (b"job_type: a\0b\n", 1, ""),
    "unknown keys": (f"surprise: 1\ntimout: 2h\n{HEAD}", 2, '"surprise"'),
    "no tasks": ("job_type: bad\ntasks: []\n", 1, "empty"),
    "a cycle": (
        HEAD.replace("['true']", "[x], on_completed: b") + TASK.replace("a,", "b, on_completed: a,"),
        1,
        "cycle",
    ),
    "unknown targets": (HEAD.replace("['true']", "[x], on_completed: aa, on_failed: FATALL"), 2, '"aa"'),
    "billion laughs": (laughs(), 1, "alias"),
    "an alias of itself": ("a: &a [*a]\n" + HEAD, 1, "alias"),
    "deep nesting": ("a: " + "[" * 5000, 1, "nested"),
    "a forbidden attribute": (scripted('{{ "".__class__.__mro__ }}'), 1, "not allowed"),
    "a template's power": (scripted("{{ 9 ** 99999999 }}"), 1, "not allowed"),
    "a huge name": (HEAD.replace("bad", "b" * 101), 1, "100"),
    "not supported yet": (HEAD.replace("method: SHELL", "method: FORK_JOB"), 1, "not supported yet"),
    "a tag of Python": ("job_type: !!python/object/apply:os.system [id]\n" + TASK, 1, "tag"),
}


@pytest.fixture(params=DOCUMENTS)
def document(request: pytest.FixtureRequest) -> tuple[bytes, int, str]:
    content, count, word = DOCUMENTS[request.param]
    return content if isinstance(content, bytes) else content.encode(), count, word


def test_the_api_lists_each_mistake_with_its_place(served: Any, document: tuple[bytes, int, str]) -> None:
    content, count, word = document

    answer = served.exchange("POST", "/definitions", content)

    assert answer.status == 422, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert len(errors) >= count
    assert word in errors[0]["message"] + errors[0]["hint"]
    assert all(error["line"] >= 1 for error in errors), errors


def test_run_says_each_mistake_in_a_line_and_exits_2(
    served: Any, document: tuple[bytes, int, str], tmp_path: Path
) -> None:
    content, count, word = document
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)

    ended = served.command("run", file)

    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) >= count
    assert all(line.startswith(f"{file}:") for line in lines), lines
    assert word in lines[0]
    assert "Traceback" not in ended.stderr


def test_ten_megabytes_are_refused_by_both(served: Any, tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_text("job_type: big\ntasks:\n" + TASK * 200_000)
    assert file.stat().st_size > 10_000_000

    answer = served.exchange("POST", "/definitions", file.read_bytes())
    ended = served.command("run", file)

    assert (answer.status, answer.json()["code"]) == (413, "ERR_TOO_LARGE")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "bytes" in ended.stderr


#: Templates that are valid, and go wrong only when a job renders them -> the code of the failure.
RENDERED = {
    "a loop without end": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "a repetition without bound": '{{ "x" * n * n * n }}',
    "an attribute by another way": '{{ "".__class__ if n == 0 else ("%s" | format(n))["__class__"] }}',
    "an undefined name": "{{ nobody_defined_this }}",
    "a filter reaching for an attribute": '{{ [n] | map(attribute="__class__") | list }}',
}


@pytest.mark.parametrize("template", RENDERED.values(), ids=RENDERED)
def test_a_template_that_goes_wrong_is_refused_or_fails_its_task_at_once(served: Any, template: str) -> None:
    text = json.dumps({"job_type": "rendered", "tasks": [{"task_type": "a", "method": "SHELL", "script": [template]}]})
    answer = served.exchange("POST", "/definitions", text.encode())
    if answer.status == 422:
        assert answer.json()["errors"][0]["path"] == "tasks[0].script[0]"
        return

    job = served.job(served.submit(text, n=100_000), wait_s=60)

    assert job["state"] == "FAILED"
    assert job["tasks"][0]["error_code"] == "ERR_TEMPLATE"
    assert "a" in job["tasks"][0]["error_message"]
    assert job["tasks"][0]["attempt"] == 0


def test_a_document_rendered_without_end_is_given_up(served: Any) -> None:
    text = (
        "job_type: endless\ndynamic_template_tasks: true\ntasks:\n"
        "{% for a in range(99999) %}{% for b in range(99999) %}\n{% endfor %}{% endfor %}" + TASK
    )
    saved = served.exchange("POST", "/definitions", text.encode())
    answer = saved if saved.status == 422 else served.exchange("POST", "/jobs", b'{"job_type": "endless"}')

    assert answer.status == 422, answer
    assert served.exchange("GET", "/jobs?limit=1").status == 200
