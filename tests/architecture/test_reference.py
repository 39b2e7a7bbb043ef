"""The reference pages are complete: every key, code, route and command has its line."""

import re
from collections.abc import Iterator
from pathlib import Path

import typer

from formicary.cli.main import app
from formicary.model.parse_job import JOB_RECORD
from formicary.model.parse_keys import METHOD_KEYS, RESERVED_METHODS, TASK_KEYS
from formicary.model.states import ErrorCode

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def without_line(text: str, words: set[str]) -> list[str]:
    """Returns the words that begin no row of a table."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    listed = {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    return sorted(words - listed)


def test_every_key_of_the_language_has_a_line() -> None:
    methods = {method: keys for method, keys in METHOD_KEYS.items() if method != "DUMMY"}
    keys = {*JOB_RECORD.keys, *TASK_KEYS, *methods, *(key for keys in methods.values() for key in keys)}
    assert without_line(page("job-language.md"), keys) == []


def test_every_method_that_is_not_there_yet_is_named() -> None:
    missing = [method for method in RESERVED_METHODS - {"FAN_OUT_JOB"} if method not in page("job-language.md")]
    assert missing == []


def test_every_error_code_is_explained() -> None:
    assert [code for code in ErrorCode if f"`{code}`" not in page("operations.md")] == []


def test_every_route_has_a_line() -> None:
    source = (ROOT / "formicary/queen/api/routes.py").read_text(encoding="utf-8")
    handlers = re.findall(r'web\.(?:get|post)\((jobs|definitions)?[ +]*(?:f?"([^"]*)")?', source)
    assert len(handlers) > 10
    bases = {"jobs": "/api/v1/jobs", "definitions": "/api/v1/definitions", "": ""}
    paths = {bases[base] + path.replace("{jobs}", bases["jobs"]) for base, path in handlers}
    names = {"job_id": "id", "name:.+": "name"}
    documented = page("api.md")
    ends = [re.sub(r"\{([^}]+)\}", lambda match: f"{{{names.get(match[1], match[1])}}}", path) for path in paths]
    assert (
        sorted(path for path in ends if path not in documented and f"/{path.rpartition('/')[2]}`" not in documented)
        == []
    )


def commands() -> Iterator[str]:
    group = typer.main.get_command(app)
    for name, command in getattr(group, "commands", {}).items():
        inner = getattr(command, "commands", None)
        yield from (f"{name} {word}" for word in inner) if inner else (name,)


def test_every_command_has_a_line() -> None:
    rows = [row for row in page("cli.md").splitlines() if row.startswith("| `formicary")]
    missing = []
    for command in commands():
        first, _, last = command.partition(" ")
        if not any(f"`formicary {first}" in row and (not last or re.search(rf"[ `]{last}[ `]", row)) for row in rows):
            missing.append(command)
    assert missing == []
