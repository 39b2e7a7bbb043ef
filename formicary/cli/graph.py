"""The graph of a definition as text."""

from collections.abc import Iterator
from typing import NamedTuple

from formicary.errors import InvalidInputError
from formicary.model.definition import JobDefinition
from formicary.model.graph_text import GraphFormat, graph


class Edge(NamedTuple):
    """An edge between two tasks; ``kind`` is ``data``, ``on_completed``, ``on_failed`` or ``exit <code>``."""

    source: str
    target: str
    kind: str


def edges_of(definition: JobDefinition) -> Iterator[Edge]:
    """Yields the edges in definition order; special targets are no tasks and have none."""
    names = {task.task_type for task in definition.tasks}
    for task in definition.tasks:
        yield from (Edge(source, task.task_type, "data") for source in task.dependencies)
        yield from (Edge(task.task_type, target, "on_completed") for target in task.on_completed)
        yield from (Edge(task.task_type, target, "on_failed") for target in task.on_failed)
        for code, target in task.on_exit_code.items():
            if target in names:
                yield Edge(task.task_type, target, f"exit {code}")


def drawn(definition: JobDefinition, form: str) -> str:
    """Returns the graph in one of the forms of ``GraphFormat``.

    Raises:
        InvalidInputError: there is no such form.
    """
    if form not in tuple(GraphFormat):
        raise InvalidInputError(f"--format {form!r} is none of {', '.join(GraphFormat)}")
    return graph(definition, GraphFormat(form)).rstrip("\n")
