"""What can be seen in a template without rendering it: mistakes, the tasks it reads, names that stand bare."""

import functools

import msgspec
from jinja2 import nodes

from formicary.template.engine import MAX_CACHED, MAX_MARKS, parse
from formicary.template.errors import TemplateMistake
from formicary.template.syntax import mistakes

#: Filters whose result cannot break out of a word of a shell.
_QUOTING_FILTERS = frozenset({"sh", "int", "float", "length", "count", "abs", "sum"})


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """``tasks`` are the names read as ``tasks.X`` or ``tasks["X"]``; ``bare_names`` those put out unquoted."""

    mistake: TemplateMistake | None = None
    tasks: tuple[str, ...] = ()
    bare_names: frozenset[str] = frozenset()


def inspect(text: str, max_marks: int = MAX_MARKS) -> Inspection:
    """Returns what can be seen in the text of a template."""
    return _inspect_cached(text, max_marks) if len(text) <= MAX_CACHED else _inspect(text, max_marks)


def _inspect(text: str, max_marks: int) -> Inspection:
    tree = parse(text, max_marks)
    if isinstance(tree, TemplateMistake):
        return Inspection(mistake=tree)
    mistake = next(mistakes(tree), None)
    if mistake is not None:
        return Inspection(mistake=mistake)
    return Inspection(tasks=_tasks(tree), bare_names=_bare_names(tree))


_inspect_cached = functools.lru_cache(maxsize=4096)(_inspect)


def _tasks(tree: nodes.Template) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for node in tree.find_all(nodes.Expr):
        if (
            not isinstance(node, nodes.Getattr | nodes.Getitem)
            or not isinstance(node.node, nodes.Name)
            or node.node.name != "tasks"
        ):
            continue
        if isinstance(node, nodes.Getattr):
            names[node.attr] = None
        elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            names[node.arg.value] = None
    return tuple(name for name in names if name not in ("get", "items", "keys", "values"))


def _bare_names(tree: nodes.Template) -> frozenset[str]:
    """Names of the context that are put out without a quoting filter at the end; names set in the template are not."""
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    bare: set[str] = set()
    for output in tree.find_all(nodes.Output):
        for expression in output.nodes:
            if isinstance(expression, nodes.Filter) and expression.name in _QUOTING_FILTERS:
                continue
            bare.update(_names(expression))
    return frozenset(bare - own)


def _names(expression: nodes.Node) -> set[str]:
    found = {expression.name} if isinstance(expression, nodes.Name) else set()
    return found | {node.name for node in expression.find_all(nodes.Name)}
