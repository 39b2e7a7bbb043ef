"""The filters and tests that templates may use, each charged to the budget of the rendering."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined
from jinja2.tests import TESTS
from jinja2.utils import _PassArg, pass_context

from formicary.template.budget import Budget
from formicary.template.errors import LimitExceededError, NotAllowedError
from formicary.template.texts import json_text, to_text

Value = Any  # whatever a template handles
Function = Callable[..., Value]

#: The largest number that a filter takes as an argument (a width, a count).
_MAX_ARGUMENT = 10_000
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{4})")

_FROM_JINJA = [
    "abs",
    "batch",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "groupby",
    "indent",
    "int",
    "items",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "wordwrap",
]
_TESTS = [
    "defined",
    "undefined",
    "none",
    "number",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "integer",
    "float",
    "boolean",
    "true",
    "false",
    "odd",
    "even",
    "divisibleby",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "in",
    "lower",
    "upper",
]


def budget_of(context: Context) -> Budget:
    """Returns the budget of the rendering that ``context`` belongs to."""
    budget: Budget = context.budget  # type: ignore[attr-defined]  # set on the context class of the sandbox
    return budget


def check_format(text: str) -> None:
    """Refuses formats that pad to great widths."""
    if _WIDE_FORMAT.search(text):
        raise LimitExceededError("a format with a width of 1000 or more, or *")


def _charged(function: Function) -> Function:
    passed = _PassArg.from_obj(function)

    @pass_context
    def charged(context: Context, value: Value, *args: Value, **kwargs: Value) -> Value:
        if not isinstance(value, Undefined):
            budget_of(context).spend_value(value)
        for each in (*args, *kwargs.values()):
            if isinstance(each, int) and abs(each) > _MAX_ARGUMENT:
                raise LimitExceededError(f"the argument {each} is larger than {_MAX_ARGUMENT:,}")
            if isinstance(each, str | list | tuple | dict):
                budget_of(context).spend_value(each)
        if passed is _PassArg.context:
            return function(context, value, *args, **kwargs)
        if passed is _PassArg.eval_context:
            return function(context.eval_ctx, value, *args, **kwargs)
        if passed is _PassArg.environment:
            return function(context.environment, value, *args, **kwargs)
        return function(value, *args, **kwargs)

    return charged


def _compares(function: Function) -> Function:
    """A test whose arguments are charged too; numbers are compared, however large."""

    @pass_context
    def compares(context: Context, value: Value, *args: Value) -> Value:
        budget = budget_of(context)
        for each in (value, *args):
            if not isinstance(each, Undefined):
                budget.spend_value(each)
        return function(value, *args)

    return compares


@pass_context
def _sh(context: Context, value: Value) -> str:
    """Quotes a value as one word for a shell; a list gives one word an item."""
    budget = budget_of(context)
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(to_text(each, budget)) for each in value)
    text = to_text(value, budget)
    budget.spend_text(len(text))
    return shlex.quote(text)


@pass_context
def _tojson(context: Context, value: Value, indent: int | None = None) -> str:
    budget = budget_of(context)
    text = json_text(value, budget)
    if indent is not None:
        text = msgspec.json.format(text, indent=max(0, min(indent, 16)))
    budget.spend_text(len(text))
    return text.decode()


@pass_context
def _fromjson(context: Context, value: str) -> Value:
    budget_of(context).spend_value(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise NotAllowedError(f"fromjson: the text is no JSON: {error}") from None


@pass_context
def _string(context: Context, value: Value) -> str:
    return to_text(value, budget_of(context))


@pass_context
def join(context: Context, value: Iterable[Value], separator: str = "", attribute: str | None = None) -> str:
    """Joins the texts of items; used for the ``~`` operator too."""
    budget = budget_of(context)
    items = list(counted(context, value))
    if attribute is not None:
        items = [context.environment.getitem(each, attribute) for each in items]
    texts = [to_text(each, budget) for each in items]
    budget.spend_text(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_context
def _replace(context: Context, value: Value, old: str, new: str) -> str:
    return replaced(budget_of(context), to_text(value, budget_of(context)), old, new)


def replaced(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    """Returns ``text.replace(old, new, count)`` unless that is too long."""
    budget.spend_text(len(text))
    found = text.count(old)
    budget.spend_text(len(text) + (found if count < 0 else min(count, found)) * len(new))
    return text.replace(old, new, count)


@pass_context
def _sum(context: Context, value: Iterable[Value], attribute: str | None = None) -> Value:
    items = list(counted(context, value))
    if attribute is not None:
        items = [context.environment.getitem(each, attribute) for each in items]
    if not all(isinstance(each, int | float) for each in items):
        raise NotAllowedError("sum adds numbers only")
    return sum(items)


@pass_context
def _format(context: Context, value: str, *args: Value) -> str:
    return formatted(budget_of(context), value, args)


def formatted(budget: Budget, text: str, args: Value) -> str:
    """Returns ``text % args`` with lists and mappings as JSON."""
    check_format(text)
    items = args if isinstance(args, tuple) else (args,)
    scalars = tuple(each if isinstance(each, int | float) else to_text(each, budget) for each in items)
    budget.spend_text(len(text) + sum(len(each) if isinstance(each, str) else 32 for each in scalars))
    return text % scalars


@pass_context
def counted(context: Context, value: Value) -> Iterable[Value]:
    """Charges each turn of a loop."""
    budget = budget_of(context)
    if isinstance(value, list | tuple | dict | range):
        budget.spend_value(value) if isinstance(value, range) else budget.spend(len(value))
        return value
    return _counted(budget, value)


def _counted(budget: Budget, value: Iterable[Value]) -> Iterable[Value]:
    for each in value:
        budget.spend(1)
        yield each


@pass_context
def compared(context: Context, value: Value) -> Value:
    """Charges a value that is compared, searched or sliced."""
    if isinstance(value, str | list | tuple | dict):
        budget_of(context).spend_value(value)
    return value


#: Names that no template can write: the rewriting of ``syntax.py`` puts them in.
COUNTED, JOINED, COMPARED = ".counted", ".joined", ".compared"

ALLOWED_FILTERS: dict[str, Function] = {
    **{name: _charged(FILTERS[name]) for name in _FROM_JINJA},
    "format": _format,
    "fromjson": _fromjson,
    "join": join,
    "replace": _replace,
    "sh": _sh,
    "string": _string,
    "sum": _sum,
    "tojson": _tojson,
}
ALL_FILTERS = {**ALLOWED_FILTERS, COUNTED: counted, JOINED: join, COMPARED: compared}
ALLOWED_TESTS: dict[str, Function] = {
    name: cast(Function, TESTS[name]) if name in ("defined", "undefined") else _compares(cast(Function, TESTS[name]))
    for name in _TESTS
}
