"""The kind of a task: picks the key table of its method and builds the ``TaskDefinition``."""

from dataclasses import dataclass
from typing import Any

import msgspec

from executors.specs import (
    HTTP_METHODS,
    DockerSpec,
    DummySpec,
    HttpSpec,
    KubernetesSpec,
    MessagingSpec,
    PythonSpec,
    ShellSpec,
    Spec,
    WebsocketSpec,
)
from formicary.model.definition import (
    ArtifactsPolicy,
    ArtifactWhen,
    BackoffPolicy,
    CachePolicy,
    MemoPolicy,
    RetryPolicy,
    TaskDefinition,
)
from formicary.model.parse_keys import (
    ALL_METHOD_KEYS,
    CHORE_METHODS,
    FILE_METHODS,
    FOLDER_METHODS,
    METHOD_KEY,
    METHOD_KEYS,
    RESERVED_METHODS,
    STATE_WORDS,
    TASK_KEYS,
    TASK_RECORDS,
    UNKNOWN_TASK_RECORD,
    is_special,
)
from formicary.model.parse_kinds import Record, Schema, key_schema
from formicary.model.parse_limits import make_limits
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node

Json = Any  # a JSON value
Values = dict[str, Json]

#: More tasks are refused.
MAX_TASKS = 200_000

_EDGE_WORDS = dict(zip(STATE_WORDS, ("on_completed", "on_failed"), strict=True))
_RENAMED = {"timeout": "timeout_s", "except": "except_"}
_PLAIN_WORDS = frozenset(
    [
        "task_type",
        "description",
        "timeout",
        "allow_failure",
        "always_run",
        "dependencies",
        "except",
        "variables",
        "tags",
    ]
)
_NOTHING = DummySpec()
_CONTAINER_SPECS: dict[str, type[DockerSpec | KubernetesSpec]] = {"DOCKER": DockerSpec, "KUBERNETES": KubernetesSpec}


@dataclass(frozen=True)
class TaskKind:
    """A task."""

    def convert(self, node: Node, path: Path, problems: Problems) -> TaskDefinition:
        """Returns the task, its targets and templates unchecked."""
        method, record = _method(node, path, problems)
        count = len(problems)
        values = record.convert(node, path, problems)
        is_sound = method in ALL_METHOD_KEYS and len(problems) == count
        _check_values(values, path, problems)
        _check_reuse(method, values, path, problems)
        if method == "KUBERNETES":
            _check_pod(values, path, problems)
        spec = _spec(method, values) if is_sound else _NOTHING
        return _task(values, method, spec, path, problems)

    def schema(self) -> Schema:
        """Returns the schema of a task: all keys, and for each method those that it takes and needs."""
        every = _every_key()
        common = {word: key_schema(key) for word, key in TASK_KEYS.items()}
        return {
            "type": "object",
            "properties": {**common, "method": key_schema(METHOD_KEY), **every},
            "required": ["task_type", "method"],
            "additionalProperties": False,
            "allOf": [_method_schema(method, every) for method in METHOD_KEYS],
        }


def _every_key() -> Schema:
    """Returns the schema of each method's keys; of one that means different things, its first description only."""
    every: Schema = {}
    for keys in METHOD_KEYS.values():
        for word, key in keys.items():
            schema = key_schema(key)
            if every.setdefault(word, schema) != schema:
                every[word] = {"description": every[word]["description"]}
    return every


def _method_schema(method: str, every: Schema) -> Schema:
    keys = METHOD_KEYS[method]
    own = {word: schema for word, key in keys.items() if (schema := key_schema(key)) != every[word]}
    then: Schema = {"properties": {**{word: False for word in every if word not in keys}, **own}}
    if method not in FOLDER_METHODS:
        then["properties"]["cache"] = False
    if method in CHORE_METHODS:
        then["properties"]["memoize"] = False
    required = [word for word, key in keys.items() if key.is_required]
    if required:
        then["required"] = required
    return {"if": {"properties": {"method": {"const": method}}, "required": ["method"]}, "then": then}


def _method(node: Node, path: Path, problems: Problems) -> tuple[str, Record]:
    if not isinstance(node.value, dict):
        return "", UNKNOWN_TASK_RECORD
    written = node.value.get("method")
    if written is None:
        hint = f"one of {', '.join(METHOD_KEYS)}"
        problems.add(path, 'the key "method" is missing', hint)
    elif isinstance(written.value, str) and written.value in RESERVED_METHODS:
        problems.add((*path, "method"), f"the method {written.value} is not supported yet")
        return written.value, TASK_RECORDS.get(written.value, UNKNOWN_TASK_RECORD)
    elif written.text in TASK_RECORDS:
        return written.text, TASK_RECORDS[written.text]
    else:
        METHOD_KEY.kind.convert(written, (*path, "method"), problems)
    return "", UNKNOWN_TASK_RECORD


def _check_values(values: Values, path: Path, problems: Problems) -> None:
    routes = values.get("on_exit_code", {})
    for word, edge in _EDGE_WORDS.items():
        if word in routes and edge in values:
            message = f"{word} means {edge}, which is given too"
            problems.add((*path, "on_exit_code", word), message, "keep one of them", at_key=True)
    backoff = values.get("retry_backoff_policy", {})
    if backoff.get("min", 1.0) > backoff.get("max", 300.0):
        problems.add((*path, "retry_backoff_policy"), "min is longer than max")
    is_polled = any("EXECUTING" in targets for targets in routes.values())
    if backoff and values.get("delay_between_retries") and not is_polled:
        message = "delay_between_retries and retry_backoff_policy are both given"
        problems.add((*path, "retry_backoff_policy"), message, "keep one of them", at_key=True)
    for word, key in (("artifacts", "paths"), ("artifacts", "exclude"), ("cache", "paths"), ("cache", "key_paths")):
        for no, name in enumerate(values.get(word, {}).get(key, ())):
            if name.startswith(("/", "~")) or ".." in name.split("/"):
                message = f'"{name[:100]}" leads out of the working directory'
                problems.add((*path, word, key, no), message, "use paths below it")


def _check_reuse(method: str, values: Values, path: Path, problems: Problems) -> None:
    if "memoize" in values and values.get("always_run"):
        message = "a task that always runs takes no earlier result"
        problems.add((*path, "memoize"), message, "leave out memoize or always_run", at_key=True)
    if "memoize" in values and method in CHORE_METHODS:
        message = f"{method} finds something new to do each time"
        problems.add((*path, "memoize"), message, "leave it out", at_key=True)
    known = f"use it with {', '.join(word for word in METHOD_KEYS if word in FOLDER_METHODS)}"
    if values.get("artifacts", {}).get("paths") and method and method not in FILE_METHODS:
        message = f"a {method} task has no working directory with files to keep"
        problems.add((*path, "artifacts", "paths"), message, known, at_key=True)
    cache = values.get("cache")
    if cache is None:
        return
    here = (*path, "cache")
    if method and method not in FOLDER_METHODS:
        problems.add(here, f"a {method} task has no working directory to cache", known, at_key=True)
    if not cache.get("key", "").strip() and not cache.get("key_paths"):
        problems.add(here, "the cache has no key", "give it a key, or key_paths, or both", at_key=True)
    for no, beginning in enumerate(cache.get("restore_keys", ())):
        if not beginning.strip():
            problems.add((*here, "restore_keys", no), "is empty", "write how the keys begin")


def _check_pod(values: Values, path: Path, problems: Problems) -> None:
    """Without a script the image's own command runs, and nothing can be had of a pod's container that has ended."""
    if values.get("script") or values.get("before_script"):
        return
    for word in ("artifacts", "cache"):
        if values.get(word, {}).get("paths"):
            message = f"{word} of a pod are collected by its script, and there is none"
            problems.add((*path, word), message, "give the task a script that runs the command", at_key=True)


def retry_policy(values: Values) -> RetryPolicy:
    """Returns the policy that the keys of a job or task describe."""
    backoff = values.get("retry_backoff_policy")
    return RetryPolicy(
        limit=values.get("retry", 0),
        delay_s=values.get("delay_between_retries", 0.0),
        backoff=None if backoff is None else _backoff(backoff),
    )


def _backoff(values: Values) -> BackoffPolicy:
    renamed = {"min": "min_s", "max": "max_s"}
    return BackoffPolicy(**{renamed.get(word, word): value for word, value in values.items()})


def _artifacts(values: Values) -> ArtifactsPolicy:
    return ArtifactsPolicy(
        paths=values.get("paths", ()),
        exclude=values.get("exclude", ()),
        when=ArtifactWhen(values.get("when", ArtifactWhen.ON_SUCCESS)),
        expires_after_s=values.get("expires_after"),
    )


def _with_seconds(values: Values) -> Values:
    renamed = {"expires_after": "expires_after_s"}
    return {renamed.get(word, word): value for word, value in values.items()}


def _spec(method: str, values: Values) -> Spec:
    own = {word: values[word] for word in ALL_METHOD_KEYS[method] if word in values}
    if method == "SHELL":
        return ShellSpec(**_with_limits(own))
    if method in HTTP_METHODS:
        return HttpSpec(method=method, **_with_body(method, own, values))
    if method in _CONTAINER_SPECS:
        return msgspec.convert(own, _CONTAINER_SPECS[method])
    if method == "WEBSOCKET":
        worker = own["worker"]
        payload = _variables_for("payload", own, values).get("payload")
        return WebsocketSpec(worker_method=worker["method"], worker_tags=worker.get("tags", ()), payload=payload)
    if method == "MESSAGING":
        return MessagingSpec(**_variables_for("body", own, values))
    return PythonSpec(**own) if method == "PYTHON" else DummySpec(**own)


def _with_limits(own: Values) -> Values:
    return {**own, "limits": make_limits(own["limits"])} if "limits" in own else own


def _with_body(method: str, own: Values, values: Values) -> Values:
    """Gives a JSON request without a body the task's variables for one."""
    return _variables_for("body", own, values) if method.endswith("_JSON") else own


def _variables_for(word: str, own: Values, values: Values) -> Values:
    variables = values.get("variables")
    if not variables or word in own:
        return own
    return {**own, word: {name: _reference(name, value) for name, value in variables.items()}}


def _reference(name: str, value: Json) -> Json:
    return "{{ " + name + " }}" if name.isidentifier() and isinstance(value, str | list | dict) else value


def _task(values: Values, method: str, spec: Spec, path: Path, problems: Problems) -> TaskDefinition:
    plain = {_RENAMED.get(word, word): value for word, value in values.items() if word in _PLAIN_WORDS}
    if "retry" in values or "delay_between_retries" in values or "retry_backoff_policy" in values:
        plain["retry"] = retry_policy(values)
    if "artifacts" in values:
        plain["artifacts"] = _artifacts(values["artifacts"])
    if "cache" in values:
        plain["cache"] = CachePolicy(**_with_seconds(values["cache"]))
    if "memoize" in values:
        plain["memoize"] = MemoPolicy(**{"key": "", **_with_seconds(values["memoize"])})
    if "on_exit_code" in values or "on_completed" in values or "on_failed" in values:
        plain.update(_edges(values, path, problems))
    return TaskDefinition(**{"task_type": "", **plain}, method=method, spec=spec)


def _edges(values: Values, path: Path, problems: Problems) -> Values:
    """Returns the control edges: words of ``on_exit_code`` that lead to tasks become plain edges.

    A special target of ``on_completed`` or ``on_failed`` becomes a word of ``on_exit_code``.
    """
    routes = values.get("on_exit_code", {})
    edges: Values = {"on_exit_code": {code: to[0] for code, to in routes.items() if code not in _EDGE_WORDS and to}}
    for word, edge in _EDGE_WORDS.items():
        targets = values.get(edge) or routes.get(word, ())
        if not any(is_special(target) for target in targets):
            edges[edge] = targets
        elif len(targets) == 1:
            edges["on_exit_code"][word] = targets[0]
        else:
            problems.add((*path, edge), "a special target stands alone", "write one target")
    return edges
