"""Warnings about definitions that are valid, but probably not what was meant."""

from collections.abc import Iterator
from typing import Any

from executors.specs import DockerSpec, KubernetesSpec, ShellSpec
from formicary.errors import Problem
from formicary.model.definition import JobDefinition, Special, TaskDefinition
from formicary.model.parse_dynamic import is_dynamic
from formicary.model.parse_flow import written_edges
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_templates import task_templates, texts_with_templates
from formicary.model.parse_yaml import locator, read_document
from formicary.template.inspect import inspect

Json = Any  # a JSON value

#: Steps that looking for upstream tasks may take in all; larger graphs are not looked at to the end.
_MAX_VISITS = 1_000_000
#: Names that every task is given: see ``formicary.template.context``.
GIVEN_NAMES = frozenset(
    {"job_id", "job_type", "job_version", "job_attempt", "job_retry", "job_elapsed_s"}
    | {"task_type", "task_attempt", "task_retry", "user", "group", "tasks", "range"}
)
_SCRIPTS = ("before_script", "script", "after_script")


def lint(definition: JobDefinition) -> list[Problem]:
    """Returns warnings in the order of the document, with positions where the definition has its source."""
    problems = Problems(_find(definition))
    _lint_job(definition, problems)
    _lint_alone(definition, problems)
    _lint_references(definition, problems)
    for no, task in enumerate(definition.tasks):
        _lint_retries(no, task, definition, problems)
        if isinstance(task.spec, ShellSpec | DockerSpec | KubernetesSpec):
            _lint_scripts(no, task, definition, problems)
    return problems.listed()


def _find(definition: JobDefinition) -> Any:
    if definition.source and not (is_dynamic(definition.source) and not definition.tasks):
        root, _ = read_document(definition.source, "definition", len(definition.source) * 4 + 1)
        return locator(root)
    return lambda path, at_key: (0, 0, path)


def _lint_job(definition: JobDefinition, problems: Problems) -> None:
    for path, _ in texts_with_templates(definition.job_variables, ("job_variables",)):
        problems.add(path, "job_variables are not rendered", "use the variables of a task for a template")
    for name in definition.job_variables:
        if name in GIVEN_NAMES:
            problems.add(("job_variables", name), f'"{name}" is given by Formicary, which wins', at_key=True)
        elif not name.isidentifier():
            message = f'no template can read "{name}"'
            problems.add(("job_variables", name), message, "use letters, digits and _", at_key=True)


def _lint_alone(definition: JobDefinition, problems: Problems) -> None:
    names = {task.task_type for task in definition.tasks}
    joined: set[str] = set()
    for no, task in enumerate(definition.tasks):
        targets = [target for target, _ in written_edges(no, task) if target in names]
        if targets:
            joined.update(targets, (task.task_type,))
    if not joined:
        return
    for no, task in enumerate(definition.tasks):
        if task.task_type not in joined and not task.always_run:
            message = f'nothing leads to or from "{task.task_type}": it starts at once, beside the others'
            problems.add(("tasks", no, "task_type"), message, "add an edge if it is to wait")


def _lint_retries(no: int, task: TaskDefinition, definition: JobDefinition, problems: Problems) -> None:
    for code, target in task.on_exit_code.items():
        path: Path = ("tasks", no, "on_exit_code", code)
        if target in (Special.EXECUTING, Special.RESTART_TASK) and not task.retry.limit:
            problems.add(path, f"{target} needs a retry of at least 1; the task fails at once", "set retry")
        if target == Special.RESTART_JOB and not definition.retry.limit:
            problems.add(path, f"{target} needs a retry of the job of at least 1", "set retry on the job")


def _lint_scripts(no: int, task: TaskDefinition, definition: JobDefinition, problems: Problems) -> None:
    for key in _SCRIPTS:
        for place, line in enumerate(getattr(task.spec, key)):
            bare = inspect(line).bare_names if "{{" in line else frozenset()
            for name in sorted(bare):
                if _is_param(name, task, definition):
                    message = f'"{name}" stands bare in a script: its value can hold commands'
                    problems.add(("tasks", no, key, place), message, f"write {{{{ {name} | sh }}}}")


def _is_param(name: str, task: TaskDefinition, definition: JobDefinition) -> bool:
    """Tells whether a request can set what a name gives."""
    if name in GIVEN_NAMES:
        return False
    if name in task.variables:
        texts = texts_with_templates(task.variables[name], ())
        inner = frozenset().union(*(inspect(text).bare_names for _, text in texts)) - {name}
        return any(each not in task.variables and _is_param(each, task, definition) for each in inner)
    return name in definition.required_params or name not in definition.job_variables


def _lint_references(definition: JobDefinition, problems: Problems) -> None:
    numbers = {task.task_type: no for no, task in enumerate(definition.tasks)}
    sources: list[list[int]] | None = None
    visits = _MAX_VISITS
    for no, task in enumerate(definition.tasks):
        wanted = list(_references(no, task, numbers))
        if not wanted or task.always_run:
            continue
        sources = sources or _sources(definition, numbers)
        above = _above(no, sources, visits)
        visits -= len(above)
        if visits <= 0:
            return
        for other, path in wanted:
            if other not in above:
                name = definition.tasks[other].task_type
                message = f'the template reads tasks.{name}, which need not have run before "{task.task_type}"'
                problems.add(path, message, f"add {name} to its dependencies")


def _references(no: int, task: TaskDefinition, numbers: dict[str, int]) -> Iterator[tuple[int, Path]]:
    for path, text in task_templates(no, task):
        for name in inspect(text).tasks:
            if name in numbers:
                yield numbers[name], path


def _sources(definition: JobDefinition, numbers: dict[str, int]) -> list[list[int]]:
    sources: list[list[int]] = [[] for _ in definition.tasks]
    for no, task in enumerate(definition.tasks):
        for target, path in written_edges(no, task):
            other = numbers.get(target)
            if other is not None:
                owner, source = (no, other) if path[2] == "dependencies" else (other, no)
                sources[owner].append(source)
    return sources


def _above(no: int, sources: list[list[int]], most: int) -> set[int]:
    above: set[int] = set()
    waiting = [no]
    while waiting and len(above) < most:
        for source in sources[waiting.pop()]:
            if source not in above:
                above.add(source)
                waiting.append(source)
    return above
