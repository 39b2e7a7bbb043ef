"""The graph of a definition as text."""

from collections.abc import Iterator
from typing import NamedTuple

from formicary.model.definition import JobDefinition


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


def mermaid(definition: JobDefinition) -> str:
    """Returns a Mermaid flowchart."""
    numbers = {task.task_type: number for number, task in enumerate(definition.tasks)}
    lines = ["flowchart TD"]
    for task in definition.tasks:
        label = task.task_type.replace('"', "#quot;")
        shape = f'(["{label}"])' if task.always_run else f'["{label}"]'
        lines.append(f"    t{numbers[task.task_type]}{shape}")
    for edge in edges_of(definition):
        arrow = "-->" if edge.kind in ("data", "on_completed") else f"-. {edge.kind} .->"
        lines.append(f"    t{numbers[edge.source]} {arrow} t{numbers[edge.target]}")
    return "\n".join(lines)
