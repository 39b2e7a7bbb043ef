"""A task's templates: compiled once per definition version, rendered at each dispatch."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from executors.specs import (
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
from formicary.model.definition import ArtifactsPolicy, CachePolicy, JobDefinition, TaskDefinition
from formicary.template.budget import Budget
from formicary.template.context import TaskContext
from formicary.template.values import CompiledValue, compile_value

Json = Any  # a JSON value
Value = Any  # whatever a template handles

_SHELL_KEYS = {"script": False, "before_script": False, "after_script": False, "environment": False}
_CONTAINER_KEYS = {**_SHELL_KEYS, "container": False, "services": False}
_POD_KEYS = dict.fromkeys(
    (
        "env_from",
        "node_selector",
        "tolerations",
        "pod_labels",
        "pod_annotations",
        "service_account",
        "image_pull_secrets",
        "priority_class",
        "security_context",
    ),
    False,
)
#: The keys of each spec that hold templates, and whether a lone expression keeps its type there.
_SPEC_KEYS: dict[type[msgspec.Struct], dict[str, bool]] = {
    ShellSpec: _SHELL_KEYS,
    HttpSpec: {"url": False, "headers": False, "query": False, "form": False, "body": True},
    PythonSpec: {"function": False, "args": True, "kwargs": True},
    DockerSpec: _CONTAINER_KEYS,
    KubernetesSpec: {**_CONTAINER_KEYS, **_POD_KEYS, "affinity": True},
    WebsocketSpec: {"payload": True},
    MessagingSpec: {"topic": False, "reply_topic": False, "key": False, "headers": False, "body": True},
    DummySpec: {"lines": False, "outputs": True},
}
_ARTIFACT_KEYS = {"paths": False, "exclude": False}
_CACHE_KEYS = dict.fromkeys(("key", "key_paths", "restore_keys", "paths"), False)
_TRUE = "true"

Parts = dict[str, CompiledValue]


class RenderedTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a dispatch carries of a task: no template is left in it."""

    spec: Spec
    artifacts: ArtifactsPolicy
    cache: CachePolicy | None = None
    variables: dict[str, Json] = {}


class CompiledTask:
    """The templates of one task. ``is_constant``: nothing of it needs a context, ``except`` apart."""

    __slots__ = (
        "_artifacts",
        "_cache",
        "_constant",
        "_except",
        "_memo_key",
        "_spec",
        "_task",
        "_variables",
        "is_constant",
    )

    def __init__(self, task: TaskDefinition, path: str) -> None:
        self._task = task
        self._variables = compile_value(task.variables, f"{path}.variables", keep_types=True)
        self._spec = _changing(task.spec, _SPEC_KEYS[type(task.spec)], path)
        self._artifacts = _changing(task.artifacts, _ARTIFACT_KEYS, f"{path}.artifacts")
        self._cache = _changing(task.cache, _CACHE_KEYS, f"{path}.cache") if task.cache is not None else {}
        memo = task.memoize
        self._memo_key = None if memo is None else compile_value(memo.key, f"{path}.memoize.key")
        self._except = None if task.except_ is None else compile_value(task.except_, f"{path}.except")
        self.is_constant = self._variables.is_constant and not (self._spec or self._artifacts or self._cache)
        self._constant = RenderedTask(
            spec=task.spec, artifacts=task.artifacts, cache=task.cache, variables=task.variables
        )

    @property
    def constant(self) -> RenderedTask:
        """The task as written: what to dispatch where it is constant."""
        return self._constant

    def render(self, context: TaskContext) -> RenderedTask:
        """Returns the task with all templates rendered: ``variables`` first, which the others see.

        Raises:
            TemplateError: a template fails; the error names its path and what is defined.
        """
        if self.is_constant:
            return self._constant
        budget = Budget()
        variables = self._variables.render(context, budget)
        inner = context.with_variables(variables) if variables else context
        return RenderedTask(
            spec=_rendered(self._task.spec, self._spec, inner, budget),
            artifacts=_rendered(self._task.artifacts, self._artifacts, inner, budget),
            cache=_rendered(self._task.cache, self._cache, inner, budget),
            variables=variables,
        )

    def memo_key(self, context: TaskContext, rendered: RenderedTask) -> str:
        """Returns the key of a task that has ``memoize``; ``rendered`` is what ``render`` made of the context.

        Raises:
            TemplateError: the template fails.
        """
        assert self._memo_key is not None, "asked of tasks with a key only"
        inner = context.with_variables(rendered.variables) if rendered.variables else context
        return str(self._memo_key.render(inner, Budget()))

    def is_excepted(self, context: TaskContext) -> bool:
        """Tells whether ``except`` gives true, in any case; variables of the task are rendered as far as it reads them.

        Raises:
            TemplateError: the template fails.
        """
        if self._except is None:
            return False
        if self._task.variables:
            context = context.with_variables(_LazyVariables(self._task, context))
        return _is_true(self._except.render(context))


def compile_task(task: TaskDefinition, job: JobDefinition) -> CompiledTask:
    """Compiles the templates of a task.

    Raises:
        TemplateError: one is not valid, which ``parse_definition`` would have refused.
    """
    del job  # the task's templates need nothing of it; a dialect chosen per document will
    return CompiledTask(task, task.task_type)


def is_skipped(job: JobDefinition, context: TaskContext) -> bool:
    """Tells whether ``skip_if`` of a job gives true, in any case.

    Raises:
        TemplateError: the template fails.
    """
    return job.skip_if is not None and _is_true(compile_value(job.skip_if, "skip_if").render(context))


def _is_true(rendered: Json) -> bool:
    return str(rendered).strip().lower() == _TRUE


def _changing(struct: msgspec.Struct, keys: Mapping[str, bool], path: str) -> Parts:
    compiled = {
        key: compile_value(value, f"{path}.{key}", keep_types=keep_types)
        for key, keep_types in keys.items()
        if (value := getattr(struct, key))
    }
    return {key: value for key, value in compiled.items() if not value.is_constant}


def _rendered(struct: Value, changing: Parts, context: TaskContext, budget: Budget) -> Value:
    if not changing:
        return struct
    return msgspec.structs.replace(struct, **{key: value.render(context, budget) for key, value in changing.items()})


class _LazyVariables(Mapping[str, Json]):
    """A task's variables, each rendered when it is asked for."""

    def __init__(self, task: TaskDefinition, context: TaskContext) -> None:
        self._task = task
        self._context = context

    def __getitem__(self, key: str) -> Json:
        value = self._task.variables[key]
        return compile_value(value, f"{self._task.task_type}.variables.{key}", keep_types=True).render(self._context)

    def __iter__(self) -> Iterator[str]:
        return iter(self._task.variables)

    def __len__(self) -> int:
        return len(self._task.variables)
