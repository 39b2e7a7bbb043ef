"""The engine behind one small interface, and its Jinja2 implementation."""

import functools
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from jinja2 import nodes
from jinja2.environment import Template
from jinja2.exceptions import TemplateRuntimeError, TemplateSyntaxError
from jinja2.utils import missing

from formicary.nearest import nearest
from formicary.template.budget import Budget
from formicary.template.errors import TemplateError, TemplateMistake
from formicary.template.sandbox import Sandbox, SandboxContext, UndefinedNameError
from formicary.template.syntax import mistakes, single_expression, with_budget
from formicary.template.texts import to_json

Json = Any  # a JSON value
Value = Any  # whatever a template handles

#: More ``{{`` and ``{%`` than these in one string are refused: compiling takes a fraction of a millisecond each.
MAX_MARKS = 2_000
#: The same for a whole document, which is compiled in a process of its own.
MAX_DOCUMENT_MARKS = 20_000
#: Longer texts are not kept in caches, in characters.
MAX_CACHED = 4096
#: How many names an error lists.
_MAX_NAMES = 20
_RESULT = "result"


class CompiledText(Protocol):
    """A compiled template; rendering it has no effects and ends soon, whatever it says."""

    def render(self, scope: Mapping[str, Value], budget: Budget, path: str) -> Json:
        """Returns the rendered text, or the value of its expression where it keeps the type.

        Raises:
            TemplateError: it uses what is not defined or not allowed, or does too much.
        """
        ...


class TemplateEngine(Protocol):
    """Makes templates out of texts."""

    def is_template(self, text: str) -> bool:
        """Tells whether rendering could change the text."""
        ...

    def mistake(self, text: str) -> TemplateMistake | None:
        """Returns the first mistake in the text of a template."""
        ...

    def compile(self, text: str, path: str, *, keep_type: bool = False) -> CompiledText:
        """Returns the compiled template.

        Raises:
            TemplateError: the text is no valid template.
        """
        ...


class JinjaEngine:
    """Sandboxed, strict Jinja2."""

    def is_template(self, text: str) -> bool:
        """Tells whether the text holds ``{{``, ``{%`` or ``{#``."""
        return "{" in text and ("{{" in text or "{%" in text or "{#" in text)

    def mistake(self, text: str) -> TemplateMistake | None:
        """Returns the first mistake in the text of a template."""
        parsed = parse(text)
        return parsed if isinstance(parsed, TemplateMistake) else next(mistakes(parsed), None)

    def compile(self, text: str, path: str, *, keep_type: bool = False) -> CompiledText:
        """Returns the compiled template; the same text is compiled once.

        Raises:
            TemplateError: the text is no valid template.
        """
        compiled = _compile_cached(text, keep_type) if len(text) <= MAX_CACHED else _compile(text, keep_type)
        if isinstance(compiled, TemplateMistake):
            raise TemplateError(path, f"line {compiled.line}: {compiled.message}")
        return compiled


ENGINE: TemplateEngine = JinjaEngine()
SANDBOX = Sandbox()


def parse(text: str, max_marks: int = MAX_MARKS) -> nodes.Template | TemplateMistake:
    """Returns the syntax tree of a template, or why there is none."""
    if text.count("{{") + text.count("{%") > max_marks:
        return TemplateMistake(line=1, message=f"more than {max_marks:,} expressions and blocks in one text")
    try:
        return SANDBOX.parse(text)
    except TemplateSyntaxError as error:
        return TemplateMistake(line=error.lineno, message=error.message or "invalid syntax")
    except (RecursionError, MemoryError):
        return TemplateMistake(line=1, message="the expression is nested too deeply")


def _compile(text: str, keep_type: bool) -> "CompiledText | TemplateMistake":
    tree = parse(text)
    if isinstance(tree, TemplateMistake):
        return tree
    mistake = next(mistakes(tree), None)
    if mistake is not None:
        return mistake
    expression = single_expression(tree) if keep_type else None
    try:
        if expression is None:
            return _JinjaText(_code(tree))
        assign = nodes.Assign(nodes.Name(_RESULT, "store"), expression, lineno=1)
        return _JinjaExpression(_code(nodes.Template([assign], lineno=1)))
    except (RecursionError, MemoryError, SyntaxError, TemplateSyntaxError) as error:
        return TemplateMistake(line=1, message=f"the template cannot be compiled: {str(error)[:100]}")


_compile_cached = functools.lru_cache(maxsize=4096)(_compile)


def render_document_text(text: str, variables: Mapping[str, Value], budget: Budget) -> str:
    """Returns a whole document rendered; errors name its lines.

    Raises:
        TemplateError: it is no valid template or fails.
    """
    tree = parse(text, MAX_DOCUMENT_MARKS)
    mistake = tree if isinstance(tree, TemplateMistake) else next(mistakes(tree), None)
    if mistake is not None or isinstance(tree, TemplateMistake):
        raise TemplateError("document", f"line {mistake.line}: {mistake.message}" if mistake else "")
    rendered: str = _JinjaText(_code(tree)).render(variables, budget, "document")
    return rendered


def _code(tree: nodes.Template) -> Template:
    tree.set_environment(SANDBOX)
    return Template.from_code(SANDBOX, SANDBOX.compile(with_budget(tree)), {})


class _JinjaText:
    __slots__ = ("_root",)

    def __init__(self, template: Template) -> None:
        self._root = template.root_render_func

    def render(self, scope: Mapping[str, Value], budget: Budget, path: str) -> Json:
        context = _context(scope, budget)
        try:
            return SANDBOX.concat(self._root(context), budget.max_chars)
        except _FAILURES as error:
            _refuse(error, scope, path)


class _JinjaExpression:
    __slots__ = ("_root",)

    def __init__(self, template: Template) -> None:
        self._root = template.root_render_func

    def render(self, scope: Mapping[str, Value], budget: Budget, path: str) -> Json:
        context = _context(scope, budget)
        try:
            for _ in self._root(context):
                pass
            return to_json(context.vars[_RESULT], budget)
        except _FAILURES as error:
            _refuse(error, scope, path)


def _context(scope: Mapping[str, Value], budget: Budget) -> SandboxContext:
    context = SandboxContext(SANDBOX, {}, None, {})
    context.scope = scope
    context.budget = budget
    return context


_FAILURES = (
    TemplateRuntimeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)


def _refuse(error: Exception, scope: Mapping[str, Value], path: str) -> NoReturn:
    if isinstance(error, UndefinedNameError):
        message = _undefined_message(error, scope)
    elif isinstance(error, TemplateRuntimeError):
        message = error.message or "not allowed"
    elif isinstance(error, RecursionError | MemoryError):
        message = "the template needs too much memory"
    else:
        message = f"{str(error)[:300] or type(error).__name__}"
    raise TemplateError(path, message) from None


def _undefined_message(error: UndefinedNameError, scope: Mapping[str, Value]) -> str:
    name = error.name or "value"
    if error.owner is missing:
        return f'"{name}" is not defined{_listed(name, scope, "defined are")}'
    if isinstance(error.owner, Mapping):
        return f'there is no "{name}" here{_listed(name, error.owner, "there are")}'
    return f'{type(error.owner).__name__} has no "{name}"'


def _listed(name: str, names: Mapping[str, Value], words: str) -> str:
    known = sorted(str(each) for each in names)
    near = nearest(name, known)
    shown = ", ".join(known[:_MAX_NAMES]) + (", …" if len(known) > _MAX_NAMES else "")
    return "; " + "; ".join(part for part in (near, f"{words} {shown}" if shown else f"{words} none") if part)
