"""A job definition after parsing and validation: what ``definitions.md`` describes, as data.

Strings that may hold templates are kept as written; ``formicary.template`` renders them at dispatch.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from executors.specs import Spec

Json = Any  # a JSON value


class Special(StrEnum):
    """Targets of ``on_exit_code`` that are no task; ``ERR_*`` strings are the remaining kind."""

    FATAL = "FATAL"
    FAILED = "FAILED"
    COMPLETED = "COMPLETED"
    RESTART_TASK = "RESTART_TASK"
    RESTART_JOB = "RESTART_JOB"
    PAUSE_JOB = "PAUSE_JOB"
    EXECUTING = "EXECUTING"


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Delays between retries: ``min_s * factor ** n``, at most ``max_s``, plus or minus ``jitter`` (0 to 1)."""

    min_s: float = 1.0
    max_s: float = 300.0
    factor: float = 2.0
    jitter: float = 0.1


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often to try again after the first time, and how long to wait before."""

    limit: int = 0
    delay_s: float = 0.0
    backoff: BackoffPolicy | None = None


class ArtifactWhen(StrEnum):
    """After which end of a task its artifacts are kept."""

    ON_SUCCESS = "onSuccess"
    ON_FAILURE = "onFailure"
    ALWAYS = "always"


class ArtifactsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt leaves behind: globs and directories relative to its working directory."""

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    when: ArtifactWhen = ArtifactWhen.ON_SUCCESS
    expires_after_s: float | None = None


class CachePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Files that later runs of the same task find again. ``restore_keys`` are beginnings of keys, tried in order.

    ``key_paths`` are globs and directories whose contents become a part of the key.
    """

    key: str = ""
    key_paths: tuple[str, ...] = ()
    restore_keys: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    expires_after_s: float | None = None


class MemoPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When an earlier run's result is taken instead of running: ``key`` names what it depends on besides the task."""

    key: str
    expires_after_s: float | None = None


class TaskDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One task. ``on_exit_code`` maps an exit code or a state word, as text, to a task, a ``Special`` or ``ERR_*``.

    ``spec`` holds what its ``method`` runs, templates unrendered.
    """

    task_type: str
    method: str
    spec: Spec
    description: str = ""
    timeout_s: float = 3600.0
    retry: RetryPolicy = RetryPolicy()
    allow_failure: bool = False
    always_run: bool = False
    on_completed: tuple[str, ...] = ()
    on_failed: tuple[str, ...] = ()
    on_exit_code: dict[str, str] = {}
    dependencies: tuple[str, ...] = ()
    except_: str | None = None
    variables: dict[str, Json] = {}
    tags: tuple[str, ...] = ()
    artifacts: ArtifactsPolicy = ArtifactsPolicy()
    cache: CachePolicy | None = None
    memoize: MemoPolicy | None = None


class JobDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A validated job: acyclic, every target known. ``source`` is the YAML text as it was uploaded.

    With ``dynamic_template_tasks`` the tasks are empty until the document is rendered with a request's params.
    """

    job_type: str
    description: str = ""
    timeout_s: float = 7200.0
    retry: RetryPolicy = RetryPolicy()
    job_variables: dict[str, Json] = {}
    required_params: tuple[str, ...] = ()
    skip_if: str | None = None
    max_concurrency: int | None = None
    priority: int = 0
    fail_fast: bool = False
    labels: dict[str, str] = {}
    dynamic_template_tasks: bool = False
    task_events: bool = False
    tasks: tuple[TaskDefinition, ...] = ()
    source: str = ""


class DefinitionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored version of a definition; ``id`` is a UUID, ``version`` counts from 1 per job type.

    ``job_type_id`` is the short name of its job type inside the database.
    """

    id: str
    job_type_id: int
    job_type: str
    version: int
    source: str
    created_at: datetime
