"""Checks the templates of a definition: syntax, what the sandbox refuses, references to tasks that do not exist."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from formicary.model.definition import JobDefinition, TaskDefinition
from formicary.model.parse_problems import Path, Problems
from formicary.template.engine import ENGINE
from formicary.template.inspect import inspect

Json = Any  # a JSON value

#: The keys of a cache that are templates.
CACHE_TEMPLATES = ("key", "key_paths", "restore_keys", "paths")


def check_templates(job: JobDefinition, problems: Problems) -> None:
    """Reports the mistakes in every string of ``job`` that is a template."""
    names = {task.task_type for task in job.tasks}
    if job.skip_if is not None:
        _check(job.skip_if, ("skip_if",), names, problems)
    for no, task in enumerate(job.tasks):
        for path, text in task_templates(no, task):
            _check(text, path, names, problems)


def task_templates(no: int, task: TaskDefinition) -> Iterator[tuple[Path, str]]:
    """Yields the place and text of each template of a task."""
    here: Path = ("tasks", no)
    if task.except_ is not None:
        yield from texts_with_templates(task.except_, (*here, "except"))
    if task.variables:
        yield from texts_with_templates(task.variables, (*here, "variables"))
    if task.artifacts.paths or task.artifacts.exclude:
        yield from texts_with_templates(task.artifacts.paths, (*here, "artifacts", "paths"))
        yield from texts_with_templates(task.artifacts.exclude, (*here, "artifacts", "exclude"))
    if task.cache is not None:
        for key in CACHE_TEMPLATES:
            yield from texts_with_templates(getattr(task.cache, key), (*here, "cache", key))
    if task.memoize is not None:
        yield from texts_with_templates(task.memoize.key, (*here, "memoize", "key"))
    for key in _spec_keys(task.spec):
        yield from texts_with_templates(getattr(task.spec, key), (*here, key))


def _spec_keys(spec: msgspec.Struct) -> tuple[str, ...]:
    return tuple(key for key in spec.__struct_fields__ if key != "method")


def texts_with_templates(value: Json, path: Path) -> Iterator[tuple[Path, str]]:
    """Yields the place and text of each template in a JSON value or a struct of them."""
    if isinstance(value, str):
        if ENGINE.is_template(value):
            yield path, value
    elif isinstance(value, msgspec.Struct):
        for key in value.__struct_fields__:
            yield from texts_with_templates(getattr(value, key), (*path, key))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from texts_with_templates(each, (*path, key))
    elif isinstance(value, list | tuple):
        for no, each in enumerate(value):
            yield from texts_with_templates(each, (*path, no))


def _check(text: str, path: Path, names: set[str], problems: Problems) -> None:
    if not ENGINE.is_template(text):
        return
    inspection = inspect(text)
    mistake = inspection.mistake
    if mistake is not None:
        where = f" in its line {mistake.line}" if "\n" in text.rstrip("\n") else ""
        problems.add(path, f"no valid template{where}: {mistake.message}")
    for name in inspection.tasks:
        if name not in names:
            problems.add(
                path, f'the template reads tasks.{name}, but no task "{name}" exists', problems.suggest(name, names)
            )
