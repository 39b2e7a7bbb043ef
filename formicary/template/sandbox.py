"""The Jinja2 environment of the sandbox.

Values are JSON values, mappings and loop variables. A name after a dot is first a key of a mapping, else one of a few
listed methods; no other attribute exists, so nothing leads to classes, modules or frames. Everything that can grow
(loops, filters, ``*``, ``+``, ``~``, output) is charged to the rendering's ``Budget``.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, pass_context

from formicary.template.budget import Budget
from formicary.template.errors import LimitExceededError, NotAllowedError
from formicary.template.filters import ALL_FILTERS, ALLOWED_TESTS, budget_of, formatted, join, replaced
from formicary.template.texts import to_text

Value = Any  # whatever a template handles

_TEXT_METHODS = frozenset(
    [
        "capitalize",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    ]
)
_LIST_METHODS = frozenset({"count", "index"})
_MAPPING_METHODS = frozenset({"get", "items", "keys", "values"})
_LOOP_NAMES = frozenset(
    [
        "index",
        "index0",
        "revindex",
        "revindex0",
        "first",
        "last",
        "length",
        "cycle",
        "changed",
        "depth",
        "depth0",
        "previtem",
        "nextitem",
    ]
)
#: What the compiler adds to calls within loops, for functions that take the context.
_LOOP_ARGUMENTS = ("_loop_vars", "_block_vars")
#: Products of larger whole numbers are refused, in bits.
_MAX_BITS = 1024


class UndefinedNameError(NotAllowedError):
    """Something undefined was used; ``owner`` is where it was looked for, or ``missing`` for a name of the context."""

    def __init__(self, owner: Value, name: str | None, message: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner
        self.name = name


class NamedUndefined(StrictUndefined):
    """Fails on any use with ``UndefinedNameError``."""

    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Value = missing, name: str | None = None, exc: object = None
    ) -> None:
        super().__init__(hint, obj, name, functools.partial(UndefinedNameError, obj, name))  # type: ignore[arg-type]


class SandboxContext(Context):
    """Looks names up in ``scope``, so that what no template asks for is never made."""

    budget: Budget
    scope: Mapping[str, Value]

    def resolve_or_missing(self, key: str) -> Value:
        """Returns the value of a name, or ``missing``."""
        if key in self.vars:
            return self.vars[key]
        value = self.scope.get(key, missing)
        return GLOBALS.get(key, missing) if value is missing else value


def _range(*bounds: int) -> range:
    return range(*bounds)


GLOBALS: dict[str, Callable[..., Value]] = {"range": _range}


@pass_context
def _finalize(context: Context, value: Value) -> str:
    budget = budget_of(context)
    if isinstance(value, Undefined):
        return str(value)
    text = to_text(value, budget)
    budget.write(len(text))
    return text


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment; one per process is enough, it holds no state of a rendering."""

    intercepted_binops = frozenset({"**", "*", "+", "%"})
    context_class = SandboxContext

    def __init__(self) -> None:
        super().__init__(
            undefined=NamedUndefined, finalize=_finalize, optimized=False, keep_trailing_newline=True, cache_size=0
        )
        self.globals = {}
        self.filters = dict(ALL_FILTERS)
        self.tests = dict(ALLOWED_TESTS)

    @staticmethod
    def concat(pieces: Iterable[str], limit: int | None = None) -> str:
        """Joins the pieces of a block."""
        parts, size = [], 0
        most = Budget().max_chars * 32 if limit is None else limit
        for piece in pieces:
            size += len(piece)
            if size > most:
                raise LimitExceededError(f"the rendered text has more than {most:,} characters")
            parts.append(piece)
        return "".join(parts)

    def getattr(self, obj: Value, attribute: str) -> Value:
        """Returns a key of a mapping, a listed method, or something undefined."""
        if isinstance(obj, Undefined):
            _fail(obj)
        if isinstance(obj, Mapping):
            if attribute in obj:
                return obj[attribute]
            names = _MAPPING_METHODS
        elif isinstance(obj, str):
            names = _TEXT_METHODS
        elif isinstance(obj, LoopContext):
            names = _LOOP_NAMES
        else:
            names = _LIST_METHODS if isinstance(obj, list | tuple) else frozenset()
        return getattr(obj, attribute) if attribute in names else self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Value, argument: Value) -> Value:
        """Returns an item of a mapping, list or text, or something undefined."""
        if isinstance(obj, Undefined):
            _fail(obj)
        try:
            if isinstance(obj, Mapping | list | tuple | str | range):
                return obj[argument]
        except (KeyError, IndexError, TypeError):
            pass
        return self.undefined(obj=obj, name=str(argument)[:100])

    def call(self, context: Context, obj: Value, *args: Value, **kwargs: Value) -> Value:
        """Calls a listed method or ``range``."""
        if isinstance(obj, Undefined):
            _fail(obj)
        for name in _LOOP_ARGUMENTS:
            kwargs.pop(name, None)
        if obj is _range:
            return obj(*args)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            return _call_on_text(context, owner, obj.__name__, args, kwargs)
        if isinstance(owner, Mapping | list | tuple):
            budget_of(context).spend(1 if obj.__name__ == "get" else 1 + len(owner))
            return obj(*args)
        if isinstance(owner, LoopContext):
            return obj(*args)
        raise NotAllowedError(f"a {type(obj).__name__} cannot be called")

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        """Calculates with ``*``, ``+`` and ``%`` within bounds."""
        if operator == "**":
            raise NotAllowedError("the operator ** is not allowed")
        budget = budget_of(context)
        if operator == "%" and isinstance(left, str):
            return formatted(budget, left, right)
        if operator == "*":
            _check_product(budget, left, right)
            _check_product(budget, right, left)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            budget.spend_text(len(left) + len(right))
        return self.binop_table[operator](left, right)


def _fail(undefined: Undefined) -> NoReturn:
    undefined._fail_with_undefined_error()


def _check_product(budget: Budget, value: Value, times: Value) -> None:
    if not isinstance(times, int):
        return
    if isinstance(value, str | list | tuple):
        budget.spend_text(len(value) * max(0, times))
    elif isinstance(value, int) and value.bit_length() + times.bit_length() > _MAX_BITS:
        raise LimitExceededError(f"a number of more than {_MAX_BITS} bits")


def _call_on_text(context: Context, owner: str, name: str, args: tuple[Value, ...], kwargs: dict[str, Value]) -> Value:
    budget = budget_of(context)
    for each in args:
        if isinstance(each, Undefined):
            _fail(each)
    if name == "join":
        return join(context, args[0] if args else (), owner)
    if name == "replace":
        return replaced(budget, owner, *args, **kwargs)
    budget.spend_text(len(owner))
    return getattr(owner, name)(*args, **kwargs)
