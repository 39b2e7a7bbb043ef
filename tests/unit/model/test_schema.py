from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from formicary.errors import DefinitionError
from formicary.model.parse import parse_definition
from formicary.model.parse_kinds import AnyJson
from formicary.model.parse_problems import Problems
from formicary.model.parse_yaml import locator, read_document
from formicary.model.schema import json_schema

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "docs").rglob("*.yaml") if "\njob_type:" in f"\n{path.read_text()}")

TASK = "job_type: a\ntasks:\n  - {task_type: t, %s}\n  - {task_type: u, method: DUMMY}\n"
GOOD = [
    "method: SHELL, script: [true, x], environment: {A: 1}, on_exit_code: {3: u, FAILED: [u], 4: ERR_X, 5: FATAL}",
    "method: SHELL, script: one, timeout: 1h30m, retry: 1, delay_between_retries: 0, on_completed: u",
    "method: HTTP_POST_JSON, url: 'http://x', body: [1]",
    "method: HTTP_POST_FORM, url: 'http://x', form: {a: b}",
    "method: HTTP_GET, url: '{{ x }}', timeout: PT5M",
    "method: PYTHON, function: 'a.b:c', args: [1], kwargs: {a: 1}",
    "method: DOCKER, container: {image: x, cpu_limit: 2}, services: [{name: db, image: y, ready: {port: 1}}]",
    "method: DOCKER, container: {image: '{{ i }} x', working_dir: '{{ w }}', memory_limit: '{{ m }}'}, script: x",
    "method: SHELL, script: x, artifacts: {paths: a, when: always, expires_after: 7d}, except: true",
    "method: DUMMY, memoize: {key: 1, expires_after: 7d}",
    "method: SHELL, script: x, cache: {key: 1, key_paths: a, restore_keys: k, paths: [b, c], expires_after: 7d}",
]
BAD = [
    "method: SHELL",
    "method: SHELL, script: [x], url: 'http://x'",
    "method: DOCKER, script: [x]",
    "method: DOCKER, container: {image: x, memory_limit: much}",
    "method: DOCKER, container: {image: x, volumes: [{mount_path: /a, pvc: b}]}",
    "method: SHELL, script: [x], container: {image: x}",
    "method: HTTP_GET, url: 'http://x', body: 1",
    "method: DUMMY, timeout: 30",
    "method: DUMMY, timeout: soon",
    "method: DUMMY, retry: -1",
    "method: DUMMY, retry: true",
    "method: DUMMY, unknown: 1",
    "method: DUMMY, artifacts: {when: never}",
    "method: DUMMY, cache: {key: k, paths: a}",
    "method: DUMMY, memoize: {expires_after: 7d}",
    "method: EXPIRE_ARTIFACTS, memoize: {key: k}",
    "method: SHELL, script: x, cache: {key: k}",
    "method: SHELL, script: x, cache: {key: k, paths: []}",
    "method: DUMMY, on_exit_code: {OOPS: u}",
    "method: DUMMY, tags: ['a b']",
    "script: [x]",
]


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def instance(text: str) -> Any:
    root, _ = read_document(text, "x")
    return AnyJson().convert(root, (), Problems(locator(root)))


def test_the_schema_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("keys", GOOD)
def test_what_the_parser_takes_the_schema_takes(keys: str, validator: Draft202012Validator) -> None:
    parse_definition(TASK % keys)
    validator.validate(instance(TASK % keys))


@pytest.mark.parametrize("keys", BAD)
def test_what_the_schema_refuses_the_parser_refuses(keys: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(instance(TASK % keys))
    with pytest.raises(DefinitionError):
        parse_definition(TASK % keys)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_of_the_documentation_fits(path: Path, validator: Draft202012Validator) -> None:
    job = parse_definition(path.read_bytes(), path.name)
    if not job.dynamic_template_tasks:
        validator.validate(instance(path.read_text()))


def test_every_key_has_a_description_for_editors() -> None:
    schema = json_schema()
    task = schema["properties"]["tasks"]["items"]
    for properties in (schema["properties"], task["properties"], task["properties"]["artifacts"]["properties"]):
        assert [word for word, each in properties.items() if not each.get("description")] == []


def test_every_method_is_listed_with_a_description() -> None:
    methods = json_schema()["properties"]["tasks"]["items"]["properties"]["method"]["oneOf"]
    assert all(each["description"] for each in methods)
    assert {"SHELL", "PYTHON", "HTTP_GET", "HTTP_DELETE"} <= {each["const"] for each in methods}
