"""What templates see: the variables of ``definitions.md``, merged only as far as one asks.

Low to high: group configs, user configs, ``job_variables``, job configs, request params, the task's ``variables``,
what is injected. ``tasks`` always means the facts about other tasks.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from formicary.model.jobs import ArtifactRef
from formicary.model.states import TaskState

Json = Any  # a JSON value
Value = Any  # whatever a template handles

_NOTHING: Mapping[str, Json] = {}
_MISSING = object()
_TASKS = "tasks"

#: The names that are given to every task: no variable of a definition or a request can replace them.
INJECTED_NAMES = (
    "job_id",
    "job_type",
    "job_version",
    "job_attempt",
    "job_retry",
    "job_elapsed_s",
    "task_type",
    "task_attempt",
    "task_retry",
    "user",
    "group",
)


class TaskFacts(Protocol):
    """What a template can know about another task; a ``TaskCell`` and a ``TaskView`` are such."""

    @property
    def state(self) -> TaskState:
        """Its state."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, if it has run."""

    @property
    def outputs(self) -> dict[str, Json] | None:
        """Its outputs, if any."""

    @property
    def artifacts(self) -> tuple[ArtifactRef, ...]:
        """Its artifacts."""


class JobScope:
    """The variables of one job, of all layers below its tasks; merged on first use."""

    __slots__ = ("_layers", "_merged")

    def __init__(
        self,
        *,
        group_configs: Mapping[str, Json] = _NOTHING,
        user_configs: Mapping[str, Json] = _NOTHING,
        job_variables: Mapping[str, Json] = _NOTHING,
        job_configs: Mapping[str, Json] = _NOTHING,
        params: Mapping[str, Json] = _NOTHING,
    ) -> None:
        self._layers = (group_configs, user_configs, job_variables, job_configs, params)
        self._merged: dict[str, Json] | None = None

    def variables(self) -> Mapping[str, Json]:
        """Returns the merged variables."""
        if self._merged is None:
            self._merged = {}
            for layer in self._layers:
                self._merged.update(layer)
        return self._merged


class TaskContext(Mapping[str, Value]):
    """The variables of one task.

    Args:
        job: the job's variables.
        injected: the values of ``INJECTED_NAMES``, or a function that makes them, called at most once.
        tasks: facts about the tasks that may be read, by name; asked only for those that are read.
    """

    __slots__ = ("_injected", "_job", "_tasks", "_variables")

    def __init__(
        self,
        job: JobScope,
        injected: Mapping[str, Json] | Callable[[], Mapping[str, Json]] = _NOTHING,
        tasks: Mapping[str, TaskFacts] = _NOTHING,
    ) -> None:
        self._job = job
        self._injected = injected
        self._tasks = tasks
        self._variables: Mapping[str, Json] = _NOTHING

    def with_variables(self, variables: Mapping[str, Json]) -> "TaskContext":
        """Returns a context in which the task's own ``variables`` are defined too."""
        context = TaskContext(self._job, self._injected, self._tasks)
        context._variables = variables
        return context

    def _given(self) -> Mapping[str, Json]:
        if callable(self._injected):
            self._injected = self._injected()
        return self._injected

    def get(self, key: str, default: Value = None) -> Value:
        """Returns the value of a name."""
        if key == _TASKS:
            return _Tasks(self._tasks)
        for layer in (self._given(), self._variables, self._job.variables()):
            value = layer.get(key, _MISSING)
            if value is not _MISSING:
                return value
        return default

    def __getitem__(self, key: str) -> Value:
        value = self.get(key, _MISSING)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def _names(self) -> set[str]:
        return {*self._given(), *self._variables, *self._job.variables(), _TASKS}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


class _Tasks(Mapping[str, Value]):
    __slots__ = ("_facts",)

    def __init__(self, facts: Mapping[str, TaskFacts]) -> None:
        self._facts = facts

    def __getitem__(self, key: str) -> Value:
        facts = self._facts[key]
        return {
            "state": str(facts.state),
            "exit_code": facts.exit_code,
            "outputs": facts.outputs or {},
            "artifacts": msgspec.to_builtins(facts.artifacts),
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)
