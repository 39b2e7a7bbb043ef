"""The key tables of tasks: what the parser accepts, what the JSON Schema says, what editors complete."""

import re
from dataclasses import dataclass

from executors.specs import HTTP_METHODS
from formicary.model.definition import ArtifactWhen, Special
from formicary.model.parse_containers import DOCKER_KEYS
from formicary.model.parse_kinds import (
    AnyJson,
    Choice,
    Duration,
    Flag,
    JsonMap,
    Key,
    ListOf,
    Name,
    Number,
    Record,
    Schema,
    Text,
    TextMap,
)
from formicary.model.parse_limits import LIMITS
from formicary.model.parse_pods import KUBERNETES_KEYS
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node

#: The most retries or polls: what the database's columns hold with room to spare.
MAX_RETRIES = 1_000_000

_SPECIALS = frozenset(str(word) for word in Special)
STATE_WORDS = ("COMPLETED", "FAILED")
_CODE = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ExitRoutes:
    """``on_exit_code``: exit code or state word -> target; a state word may have a list of targets."""

    def convert(self, node: Node, path: Path, problems: Problems) -> dict[str, tuple[str, ...]]:
        """Returns the targets by exit code, as plain digits, or state word."""
        if not isinstance(node.value, dict):
            problems.add(path, f"expected a mapping, got {node.kind}", "write {3: target}")
            return {}
        routes: dict[str, tuple[str, ...]] = {}
        for word, each in node.value.items():
            here = (*path, word)
            is_code = _CODE.fullmatch(word) is not None
            code = str(int(word)) if is_code else word
            if not is_code and word not in STATE_WORDS:
                hint = problems.suggest(word, STATE_WORDS) or "use an exit code, an HTTP status, COMPLETED or FAILED"
                problems.add(here, f'"{word[:60]}" is no exit code', hint, at_key=True)
            elif code in routes:
                problems.add(here, f"the exit code {code} is given twice", at_key=True)
            elif isinstance(each.value, list) and code not in STATE_WORDS:
                problems.add(here, "an exit code has one target", "a list goes with on_completed or on_failed")
            else:
                routes[code] = _TARGETS.convert(each, here, problems)
        return routes

    def schema(self) -> Schema:
        """Returns the schema of the routes."""
        codes = {"^[0-9]{1,9}$": _TARGET_SCHEMA}
        words = {word: {"anyOf": [_TARGET_SCHEMA, {"type": "array", "items": _TARGET_SCHEMA}]} for word in STATE_WORDS}
        return {"type": "object", "patternProperties": codes, "properties": words, "additionalProperties": False}


_TARGETS = ListOf(Name(), takes_one=True, is_unique=True, min_items=1)
_TARGET_SCHEMA: Schema = {
    "anyOf": [
        {"enum": [str(word) for word in Special], "description": "A special target."},
        {"type": "string", "pattern": "^ERR_", "description": "Fails with this error code."},
        {**Name().schema(), "description": "A task."},
    ]
}
NAMES = ListOf(Name(), takes_one=True, is_unique=True)
_LINES = ListOf(Text(is_loose=True), takes_one=True)

_BACKOFF = Record(
    name="retry_backoff_policy",
    keys={
        "min": Key(Duration(is_positive=True), "The first delay.", default="1s"),
        "max": Key(Duration(is_positive=True), "No delay is longer.", default="5m"),
        "factor": Key(Number(1, 1000, is_whole=False), "Each delay is so many times the former.", default=2),
        "jitter": Key(Number(0, 1, is_whole=False), "A share of the delay, randomly added or taken off.", default=0.1),
    },
)

_FILES = ListOf(Text(), takes_one=True)
_ARTIFACTS = Record(
    name="artifacts",
    keys={
        "paths": Key(_FILES, "Globs and directories to keep, relative to the working directory."),
        "exclude": Key(_FILES, "Globs of files to leave out."),
        "when": Key(
            Choice(
                tuple(str(each) for each in ArtifactWhen),
                {
                    "onSuccess": "Keep them when the task completed.",
                    "onFailure": "Keep them when the task failed.",
                    "always": "Keep them in any case.",
                },
            ),
            "After which end of the task they are kept.",
            default="onSuccess",
        ),
        "expires_after": Key(Duration(is_positive=True), "They are deleted after so long."),
    },
)

_CACHE = Record(
    name="cache",
    keys={
        "key": Key(Text(is_loose=True), "Names the cache; the same key is stored once."),
        "key_paths": Key(_FILES, "Globs and directories whose contents become a part of the key."),
        "restore_keys": Key(
            ListOf(Text(is_loose=True), takes_one=True),
            "Beginnings of keys: where the key itself is not found, the newest that begins so is restored.",
        ),
        "paths": Key(ListOf(Text(), takes_one=True, min_items=1), "Globs and directories to keep.", is_required=True),
        "expires_after": Key(Duration(is_positive=True), "It is not restored any more after so long."),
    },
)
#: Methods whose attempts have a working directory.
FOLDER_METHODS = frozenset({"SHELL", "DOCKER", "KUBERNETES"})
#: Methods whose attempts get the artifacts of their dependencies and leave some; by URLs, where there is no directory.
FILE_METHODS = FOLDER_METHODS | {"WEBSOCKET"}
#: What no ant does, but the queen itself.
CHORE_METHODS = frozenset({"EXPIRE_ARTIFACTS"})

_MEMOIZE = Record(
    name="memoize",
    keys={
        "key": Key(
            Text(is_loose=True, pattern=r"\S", pattern_hint="name what the result depends on"),
            "What the result depends on, besides the task itself and the artifacts that it gets.",
            is_required=True,
        ),
        "expires_after": Key(Duration(is_positive=True), "Results that are older are not taken."),
    },
)

RETRY_KEYS = {
    "retry": Key(Number(0, MAX_RETRIES), "Attempts after the first.", default=0),
    "delay_between_retries": Key(Duration(), "How long to wait before each of them, and between polls.", default="0"),
    "retry_backoff_policy": Key(_BACKOFF, "Growing delays in place of delay_between_retries."),
}

TASK_KEYS: dict[str, Key] = {
    "task_type": Key(Name(), "The task's name, unique in the job.", is_required=True),
    "description": Key(Text(max_length=10_000), "What the task is for."),
    "timeout": Key(Duration(is_positive=True), "The attempt is stopped after so long.", default="1h"),
    **RETRY_KEYS,
    "allow_failure": Key(Flag(), "The job goes on, and can complete, when the task failed.", default=False),
    "always_run": Key(Flag(), "Runs last, at the end of every job attempt, whatever happened.", default=False),
    "on_completed": Key(_TARGETS, "What runs after the task completed: a task or a list of tasks."),
    "on_failed": Key(_TARGETS, "What runs after the task failed: a task or a list of tasks."),
    "on_exit_code": Key(
        ExitRoutes(), "What follows from an exit code or HTTP status: a task, a special target or ERR_…."
    ),
    "dependencies": Key(NAMES, "Tasks to wait for, whose artifacts are brought along."),
    "except": Key(
        Text(is_loose=True, default=None), "A template; the task is skipped, and counts as passed, when it gives true."
    ),
    "variables": Key(JsonMap(), "Variables of this task's templates."),
    "tags": Key(NAMES, "Only ants with all of these tags run the task."),
    "artifacts": Key(_ARTIFACTS, "The files that the task leaves behind."),
    "cache": Key(_CACHE, "Files that later runs of the task find again."),
    "memoize": Key(_MEMOIZE, "Takes the result of an earlier run with equal inputs instead of running."),
}

_SHELL_KEYS = {
    "script": Key(ListOf(Text(is_loose=True), takes_one=True, min_items=1), "Lines for one sh -e.", is_required=True),
    "before_script": Key(_LINES, "Lines that run before the script, in the same shell."),
    "after_script": Key(_LINES, "Lines that run whatever happened, and change no result."),
    "environment": Key(TextMap(), "Environment variables of the script."),
    "limits": Key(LIMITS, "What the script may use at most."),
}
_HTTP_KEYS = {
    "url": Key(
        Text(pattern=r"^(https?://|\{[{%#])", pattern_hint="begin with http:// or https://"),
        "The address.",
        is_required=True,
    ),
    "headers": Key(TextMap(), "Headers of the request."),
    "query": Key(TextMap(), "Parameters that are added to the address."),
}
_BODY_KEYS = {"body": Key(AnyJson(), "The JSON body; without it, a POST, PUT or PATCH sends the task's own variables.")}
_FORM_KEYS = {"form": Key(TextMap(), "The fields of the form, sent URL-encoded.")}
_PYTHON_KEYS = {
    "function": Key(
        Text(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$|\{\{", pattern_hint="write package.module:name"),
        "The function to call, as package.module:name.",
        is_required=True,
    ),
    "args": Key(ListOf(AnyJson()), "Its positional arguments."),
    "kwargs": Key(JsonMap(), "Its keyword arguments."),
    "in_process_pool": Key(Flag(), "Calls it in a process of a pool, not in a thread.", default=False),
}
_WORKER = Record(
    name="worker",
    keys={
        "method": Key(Name(), "What the worker is to do: a word that workers offer.", is_required=True),
        "tags": Key(NAMES, "Only workers with all of these tags get the task."),
    },
)
_WEBSOCKET_KEYS = {
    "worker": Key(_WORKER, "Which connected worker gets the task.", is_required=True),
    "payload": Key(AnyJson(), "What it is given, any JSON; without it, the task's own variables."),
}
_TOPIC = Text(
    pattern=r"^(?!formicary\.)[A-Za-z0-9][A-Za-z0-9._\-]{0,199}$",
    pattern_hint="use letters, digits and . _ -; topics that begin with formicary. are the colony's own",
)
_MESSAGING_KEYS = {
    "topic": Key(_TOPIC, "Where the request goes.", is_required=True),
    "reply_topic": Key(_TOPIC, "Where the reply comes; by default to a topic of the ant."),
    "key": Key(Text(is_loose=True), "Requests of one key stay in order; by default the job's id."),
    "headers": Key(TextMap(), "Headers of the message."),
    "body": Key(AnyJson(), "What is asked for, any JSON; without it, the task's own variables."),
}
_DUMMY_KEYS = {
    "exit_code": Key(Number(0, 10**9 - 1), "How the pretended work ends.", default=0),
    "duration_s": Key(Number(0, 10**6, is_whole=False), "How many seconds it takes.", default=0),
    "lines": Key(_LINES, "What it prints."),
    "outputs": Key(JsonMap(), "Its outputs."),
    "fail_start": Key(Flag(), "The executor fails before the start.", default=False),
    "ignore_stop": Key(Flag(), "It does not end when it is stopped.", default=False),
}


def _http_keys(method: str) -> dict[str, Key]:
    if method.endswith("_FORM"):
        return {**_HTTP_KEYS, **_FORM_KEYS}
    return dict(_HTTP_KEYS) if method == "HTTP_GET" else {**_HTTP_KEYS, **_BODY_KEYS}


#: The keys of every method, those included that no executor serves yet.
ALL_METHOD_KEYS: dict[str, dict[str, Key]] = {
    "SHELL": _SHELL_KEYS,
    **{method: _http_keys(method) for method in HTTP_METHODS},
    "PYTHON": _PYTHON_KEYS,
    "DOCKER": DOCKER_KEYS,
    "KUBERNETES": KUBERNETES_KEYS,
    "WEBSOCKET": _WEBSOCKET_KEYS,
    "MESSAGING": _MESSAGING_KEYS,
    "EXPIRE_ARTIFACTS": {},
    "DUMMY": _DUMMY_KEYS,
}
METHOD_DESCRIPTIONS = {
    "SHELL": "A script for sh.",
    **{method: f"An HTTP {method.split('_')[1]} request." for method in HTTP_METHODS},
    "PYTHON": "A call of an importable function.",
    "DOCKER": "A container of an engine.",
    "KUBERNETES": "A pod of a cluster.",
    "WEBSOCKET": "Work for a remote worker that connected to an ant.",
    "MESSAGING": "A request to another service over the message broker, and its reply.",
    "EXPIRE_ARTIFACTS": "The queen deletes the artifacts whose time has come.",
    "DUMMY": "Pretended work, for tests.",
}
RESERVED_METHODS = frozenset(
    [
        "FORK_JOB",
        "AWAIT_FORKED_JOB",
        "MANUAL",
        "FAN_OUT_JOB",
    ]
)
#: The keys of every method that is supported.
METHOD_KEYS = {method: keys for method, keys in ALL_METHOD_KEYS.items() if method not in RESERVED_METHODS}
METHOD_KEY = Key(Choice(tuple(METHOD_KEYS), METHOD_DESCRIPTIONS), "How the task is run.", is_required=True)

_RESERVED_TASK_KEYS = frozenset(
    [
        "fan_out",
        "helper",
        "resources",
        "webhook",
        "approval_policy",
        "fork_job_type",
        "fork_job_version",
        "await_forked_tasks",
        "sub_workflow",
        "messaging_request_queue",
        "messaging_reply_queue",
        "host_network",
        "network_mode",
        "privileged",
        "node_selector",
        "node_tolerations",
        "affinity",
        "pod_labels",
        "pod_annotations",
        "service_account",
        "artifact_ids",
        "working_dir",
        "report_stdout",
        "platform",
        "notify",
        "helper_environment",
    ]
)


#: A method that whoever picks the record has judged already.
_REPORTED_METHOD = Key(AnyJson(), "")


def _elsewhere(method: str) -> dict[str, str]:
    users: dict[str, list[str]] = {}
    for other, keys in ALL_METHOD_KEYS.items():
        for word in keys:
            users.setdefault(word, []).append(other)
    own = ALL_METHOD_KEYS[method]
    return {
        word: f'"{word}" is no key of {method}; it belongs to {", ".join(methods)}'
        for word, methods in users.items()
        if word not in own
    }


TASK_RECORDS: dict[str, Record] = {
    method: Record(
        name=f"a {method} task",
        keys={**TASK_KEYS, "method": METHOD_KEY if method in METHOD_KEYS else _REPORTED_METHOD, **keys},
        reserved=_RESERVED_TASK_KEYS,
        elsewhere=_elsewhere(method),
    )
    for method, keys in ALL_METHOD_KEYS.items()
}
_EVERY_METHOD_KEY = {word: Key(AnyJson(), "") for keys in ALL_METHOD_KEYS.values() for word in keys}

#: A task whose method is missing, wrong or not supported: its other keys are checked all the same.
UNKNOWN_TASK_RECORD = Record(
    name="a task", keys={**TASK_KEYS, "method": _REPORTED_METHOD, **_EVERY_METHOD_KEY}, reserved=_RESERVED_TASK_KEYS
)


def is_special(target: str) -> bool:
    """Tells whether a target is a word of the language, not a task."""
    return target in _SPECIALS or target.startswith("ERR_")
