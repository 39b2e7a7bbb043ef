"""The stacks of ``compose/`` follow the compose specification and the rules of this project."""

import importlib.resources
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from brokers.registry import make_broker
from formicary.artifacts.registry import make_store
from formicary.artifacts.s3 import S3Store
from formicary.settings import VARIABLES, load

ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / "compose").glob("*.yaml"))
FORMICARY = Path(sys.executable).parent / "formicary"
#: What is read by the driver of the artifact store and not by us.
LOGIN = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::?([-?])([^}]*))?\}")


def example_environment() -> dict[str, str]:
    lines = (ROOT / "compose" / "example.env").read_text(encoding="utf-8").splitlines()
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines if re.match(r"[A-Z]", line)}


def filled(node: Any, environ: dict[str, str]) -> Any:
    """Returns a document with its variables replaced, as compose does it."""
    if isinstance(node, dict):
        return {key: filled(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(item, environ) for item in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environ[match[1]] or (match[3] if match[2] == "-" else "")

    return VARIABLE.sub(value, node)


@pytest.fixture(params=STACKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def stack(path: Path) -> dict[str, Any]:
    environ = {name: "" if name == "FORMICARY_LOG_LEVEL" else "secret" for name in example_environment()}
    found: dict[str, Any] = filled(yaml.safe_load(path.read_text(encoding="utf-8")), environ)
    return found


def test_there_is_a_stack_for_each_broker() -> None:
    assert [path.stem for path in STACKS] == ["kafka", "pulsar", "redis"]


def test_a_stack_follows_the_compose_specification(stack: dict[str, Any]) -> None:
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    validator = jsonschema.Draft202012Validator(json.loads(vendored.read_text(encoding="utf-8")))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(stack)] == []
    assert not validator.is_valid(stack | {"services": {"x": {"restarts": "always"}}})


def test_a_stack_has_two_queens_three_ants_and_what_they_stand_on(path: Path, stack: dict[str, Any]) -> None:
    queens, ants = {"queen-1", "queen-2"}, {"ant-1", "ant-2", "ant-3"}
    assert stack["services"].keys() == queens | ants | {"postgres", path.stem, "s3"}
    for name in queens | ants:
        assert {path.stem, "s3"} <= stack["services"][name]["depends_on"].keys()
    for name in queens | ants:
        command = stack["services"][name]["command"]
        assert (command[0], command[command.index("--id") + 1]) == (name.partition("-")[0], name)


def test_every_service_is_watched_started_again_and_keeps_its_data(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert service["healthcheck"]["test"], name
        assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys(), name
        assert service["restart"] == "unless-stopped", name
        assert service["volumes"], name
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in stack["volumes"], f"{name}: {volume}"


def test_every_image_is_pinned_to_a_version(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        tag = service["image"].rpartition("/")[2].partition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"


def test_the_version_is_that_of_the_project(stack: dict[str, Any]) -> None:
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert project is not None
    assert stack["services"]["queen-1"]["image"] == f"formicary:{project[1]}"


def test_our_own_services_have_no_more_rights_than_they_need(stack: dict[str, Any]) -> None:
    ours = {name: service for name, service in stack["services"].items() if service["image"].startswith("formicary:")}
    assert len(ours) == 5
    for service in ours.values():
        assert (service["init"], service["read_only"], service["cap_drop"]) == (True, True, ["ALL"])
        assert "ports" not in service


def test_no_secret_is_written_down_and_none_has_a_default(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for variable, sign, default in (match.groups() for match in VARIABLE.finditer(text) if match[0] != "$$"):
        if re.search(r"PASSWORD|KEY|TOKEN", variable):
            assert sign == "?", f"{variable} may be empty, or is {default!r}"
    assert set(example_environment().values()) == {""}


def test_every_variable_is_in_the_example_and_every_one_there_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in STACKS)
    used = {match[1] for match in VARIABLE.finditer(text) if match[1]}
    assert used == example_environment().keys()


def test_every_setting_exists_and_is_accepted(stack: dict[str, Any], tmp_path: Path) -> None:
    known = {variable.name for variable in VARIABLES}
    for name, service in stack["services"].items():
        if not service["image"].startswith("formicary:"):
            continue
        settings = service["environment"]
        assert sorted(settings.keys() - known - LOGIN) == [], name
        loaded = load(settings | {"FORMICARY_HOME": str(tmp_path)})
        assert make_broker(loaded.broker_url).capabilities.survives_process
        assert isinstance(make_store(loaded.artifacts_url), S3Store)


def test_every_flag_exists(stack: dict[str, Any]) -> None:
    for process in ("queen", "ant"):
        ended = subprocess.run([FORMICARY, process, "--help"], capture_output=True, text=True, check=True)
        for name, service in stack["services"].items():
            if name.startswith(process):
                flags = [word for word in service["command"] if word.startswith("--")]
                assert [flag for flag in flags if flag not in ended.stdout] == [], name


def test_the_settings_that_durability_needs_are_set() -> None:
    redis, kafka, pulsar = ((ROOT / f"compose/{name}.yaml").read_text() for name in ("redis", "kafka", "pulsar"))
    assert "--appendonly yes --appendfsync always --maxmemory-policy noeviction" in redis
    assert 'KAFKA_AUTO_CREATE_TOPICS_ENABLE: "false"' in kafka
    assert 'journalSyncData: "true"' in pulsar
    assert 'brokerDeleteInactiveTopicsEnabled: "false"' in pulsar


def dockerfile() -> list[tuple[str, str]]:
    """Returns the instructions and what follows each."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line.strip()]


def test_the_image_is_made_in_stages_and_does_not_run_as_root() -> None:
    instructions = dockerfile()
    stages = [index for index, (word, _) in enumerate(instructions) if word == "FROM"]
    last = instructions[stages[-1] :]
    assert len(stages) == 2
    (user,) = [rest for word, rest in last if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert ("ENTRYPOINT", '["formicary"]') in last
    assert [rest for word, rest in last if word in ("COPY", "ADD") and not rest.startswith("--from=build")] == []


def test_the_base_image_is_pinned() -> None:
    (base,) = [rest for word, rest in dockerfile() if word == "ARG" and rest.startswith("BASE_IMAGE=")]
    assert re.fullmatch(r"BASE_IMAGE=python:3\.\d+\.\d+-slim-\w+", base)


def test_what_the_image_needs_of_the_repository_is_not_ignored() -> None:
    kept = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    copied = {
        source
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    }
    assert copied == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []
