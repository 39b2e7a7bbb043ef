"""The graph of a definition as text, for people and for drawing programs."""

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from formicary.model.definition import JobDefinition
from formicary.model.parse_flow import written_edges
from formicary.model.parse_keys import is_special


class GraphFormat(StrEnum):
    """How a graph is written."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"


class _Edge(msgspec.Struct, frozen=True):
    source: str
    target: str
    label: str
    is_data: bool


def graph(definition: JobDefinition, format: GraphFormat | str = GraphFormat.TEXT) -> str:  # noqa: A002 - its name
    """Returns the tasks and edges of a definition, ending with a newline.

    Control edges carry their condition, data edges go from the dependency to the task that waits for it.
    """
    return _WRITERS[GraphFormat(format)](definition)


def _edges(definition: JobDefinition) -> Iterator[_Edge]:
    for no, task in enumerate(definition.tasks):
        for target, path in written_edges(no, task):
            if path[2] == "dependencies":
                yield _Edge(target, task.task_type, "data", True)
            else:
                label = str(path[3]) if path[2] == "on_exit_code" else str(path[2]).removeprefix("on_")
                yield _Edge(task.task_type, target, label, False)


def _text(definition: JobDefinition) -> str:
    leaving: dict[str, list[str]] = {}
    for edge in _edges(definition):
        leaving.setdefault(edge.source, []).append(f"  {edge.label} -> {edge.target}")
    lines = [definition.job_type]
    for task in definition.tasks:
        last = ", always_run" if task.always_run else ""
        lines += [f"{task.task_type} ({task.method}{last})", *leaving.get(task.task_type, ())]
    return "\n".join(lines) + "\n"


def _mermaid(definition: JobDefinition) -> str:
    ids = {task.task_type: f"t{no}" for no, task in enumerate(definition.tasks)}
    lines = ["flowchart TD"]
    for task in definition.tasks:
        opening, closing = ("([", "])") if task.always_run else ("[", "]")
        lines.append(f'  {ids[task.task_type]}{opening}"{task.task_type}"{closing}')
    for edge in _edges(definition):
        if is_special(edge.target):
            ids.setdefault(edge.target, f"s{len(ids)}")
        arrow = "-.->" if edge.is_data else f'-->|"{edge.label}"|'
        target = ids[edge.target] + (f'{{{{"{edge.target}"}}}}' if is_special(edge.target) else "")
        lines.append(f"  {ids[edge.source]} {arrow} {target}")
    return "\n".join(lines) + "\n"


def _dot(definition: JobDefinition) -> str:
    lines = [f'digraph "{definition.job_type}" {{', "  rankdir=LR;", "  node [shape=box];"]
    for task in definition.tasks:
        style = " [style=rounded]" if task.always_run else ""
        lines.append(f'  "{task.task_type}"{style};')
    for edge in _edges(definition):
        style = "style=dashed" if edge.is_data else f'label="{edge.label}"'
        lines.append(f'  "{edge.source}" -> "{edge.target}" [{style}];')
    return "\n".join([*lines, "}"]) + "\n"


_WRITERS: dict[GraphFormat, Callable[[JobDefinition], str]] = {
    GraphFormat.TEXT: _text,
    GraphFormat.MERMAID: _mermaid,
    GraphFormat.DOT: _dot,
}
