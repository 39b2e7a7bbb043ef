"""What the syntax of templates allows, and the rewriting that puts the budget into loops and operators."""

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from formicary.template.errors import TemplateMistake
from formicary.template.filters import ALLOWED_FILTERS, ALLOWED_TESTS, COMPARED, COUNTED, JOINED

#: How deep syntax trees may be, and how many loops and conditions within each other.
MAX_DEPTH, MAX_LOOPS = 50, 12

_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Macro: "macros are not allowed",
    nodes.CallBlock: "call blocks are not allowed",
    nodes.Include: "include is not allowed: a template stands alone",
    nodes.Import: "import is not allowed: a template stands alone",
    nodes.FromImport: "import is not allowed: a template stands alone",
    nodes.Extends: "extends is not allowed: a template stands alone",
    nodes.Block: "blocks are not allowed: a template stands alone",
    nodes.ScopedEvalContextModifier: "autoescape is not allowed",
    nodes.Pow: "the operator ** is not allowed",
}
_FORBIDDEN_NAMES = frozenset({"self", "super", "caller", "varargs", "kwargs"})


def mistakes(tree: nodes.Template) -> Iterator[TemplateMistake]:
    """Yields what the sandbox does not allow in a parsed template."""
    if _is_too_deep(tree):
        yield TemplateMistake(line=1, message="the template is nested too deeply")
        return
    for node in tree.find_all(nodes.Node):
        message = _mistake(node)
        if message is not None:
            yield TemplateMistake(line=node.lineno, message=message)


def _is_too_deep(tree: nodes.Node) -> bool:
    """Tells whether Python would refuse the code: it takes some 200 parentheses and 20 loops within each other."""
    waiting = [(tree, 0, 0)]
    while waiting:
        node, depth, loops = waiting.pop()
        if depth > MAX_DEPTH or loops > MAX_LOOPS:
            return True
        inner = loops + isinstance(node, nodes.For | nodes.If | nodes.With)
        waiting += [(child, depth + 1, inner) for child in node.iter_child_nodes()]
    return False


def _mistake(node: nodes.Node) -> str | None:
    if type(node) in _FORBIDDEN:
        return _FORBIDDEN[type(node)]
    if isinstance(node, nodes.For) and node.recursive:
        return "recursive loops are not allowed"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f'the attribute "{node.attr}" is not allowed'
    if isinstance(node, nodes.Name) and (node.name in _FORBIDDEN_NAMES or node.name.startswith("__")):
        return f'the name "{node.name}" is not allowed'
    if isinstance(node, nodes.Filter) and node.name not in ALLOWED_FILTERS:
        return f'no filter "{node.name}"; there are {", ".join(sorted(ALLOWED_FILTERS))}'
    if isinstance(node, nodes.Test) and node.name not in ALLOWED_TESTS:
        return f'no test "{node.name}"; there are {", ".join(name for name in ALLOWED_TESTS if name.isalpha())}'
    return None


def with_budget(tree: nodes.Template) -> nodes.Template:
    """Returns the tree with its loops, ``~``, comparisons and slices charged to the budget. Changes ``tree``."""
    _Charging().visit(tree)
    return tree


def single_expression(tree: nodes.Template) -> nodes.Expr | None:
    """Returns the expression of a template that is exactly one ``{{ … }}``."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    is_text = len(parts) != 1 or isinstance(parts[0], nodes.TemplateData)
    return None if is_text else parts[0]


class _Charging(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - named after the node
        self.generic_visit(node)
        node.iter = _filtered(node.iter, COUNTED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - named after the node
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802 - named after the node
        self.generic_visit(node)
        node.expr = _filtered(node.expr, COMPARED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, COMPARED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:  # noqa: N802 - named after the node
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, COMPARED)
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    if isinstance(node, nodes.Const):
        return node  # type: ignore[return-value]  # a constant of the text costs nothing more
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
