"""The key table of jobs, and the ``JobDefinition`` that its values make."""

from formicary.model.definition import JobDefinition
from formicary.model.parse_keys import NAMES, RETRY_KEYS
from formicary.model.parse_kinds import Duration, Flag, JsonMap, Key, ListOf, Name, Number, Record, Text, TextMap
from formicary.model.parse_problems import Problems
from formicary.model.parse_task import MAX_TASKS, TaskKind, Values, retry_policy
from formicary.model.parse_yaml import Node

#: The widest range of priorities: what the database's columns hold with room to spare.
MAX_PRIORITY = 1_000_000

_RESERVED_JOB_KEYS = frozenset(
    [
        "cron_trigger",
        "triggers",
        "notify",
        "webhook",
        "resources",
        "filter",
        "hard_reset_after_retries",
        "pause_time",
        "public_plugin",
        "sem_version",
        "platform",
        "tags",
        "memoize",
        "concurrency_key",
        "retention_days_for_failed",
        "retention_days_for_completed",
        "retention_days_for_cancelled",
    ]
)


_HEAD_KEYS = {
    "job_type": Key(Name(), "The job's name.", is_required=True),
    "description": Key(Text(max_length=10_000), "What the job is for."),
    "timeout": Key(Duration(is_positive=True), "A job attempt is stopped after so long.", default="2h"),
    **RETRY_KEYS,
    "job_variables": Key(JsonMap(), "Variables of all templates, which a request's params override."),
    "required_params": Key(NAMES, "Params without which a request is refused."),
    "skip_if": Key(Text(is_loose=True, default=None), "A template; the job completes at once when it gives true."),
    "max_concurrency": Key(Number(1, 10**6), "So many jobs of this type run at a time."),
    "priority": Key(Number(-MAX_PRIORITY, MAX_PRIORITY), "Higher ones are started first.", default=0),
    "fail_fast": Key(Flag(), "A failure cancels the tasks that run.", default=False),
    "labels": Key(TextMap(has_names=True), "Labels to find the jobs by."),
    "dynamic_template_tasks": Key(
        Flag(), "The document is a template, rendered with each request's params.", default=False
    ),
    "task_events": Key(Flag(), "Publishes an event for each change of a task too.", default=False),
}
_TASKS = Key(ListOf(TaskKind(), min_items=1, max_items=MAX_TASKS), "The list of tasks.", is_required=True)

JOB_RECORD = Record(name="a job", keys={**_HEAD_KEYS, "tasks": _TASKS}, reserved=_RESERVED_JOB_KEYS)

#: A job whose tasks are made later, by rendering.
HEAD_RECORD = Record(name="a job", keys=_HEAD_KEYS, reserved=_RESERVED_JOB_KEYS)

_RENAMED = {"timeout": "timeout_s"}
_RETRY_WORDS = frozenset(RETRY_KEYS)


def build_job(root: Node, record: Record, source: str, problems: Problems) -> JobDefinition:
    """Returns the definition that ``root`` describes, as far as it could be read."""
    values = record.convert(root, (), problems)
    return _job(values, source)


def _job(values: Values, source: str) -> JobDefinition:
    plain = {_RENAMED.get(word, word): value for word, value in values.items() if word not in _RETRY_WORDS}
    return JobDefinition(retry=retry_policy(values), source=source, **{"job_type": "", **plain})
