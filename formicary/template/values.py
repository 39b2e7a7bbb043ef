"""JSON values that hold templates: compiled once, rendered often, constant parts never touched."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from formicary.template.budget import Budget
from formicary.template.engine import ENGINE, CompiledText

Json = Any  # a JSON value
Value = Any  # whatever a template handles


class CompiledValue(Protocol):
    """A JSON value with templates in its strings. Keys of mappings are never templates."""

    is_constant: bool

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        """Returns the value with every template rendered; a constant one is returned as it is, not copied.

        Raises:
            TemplateError: one of them fails; the error names its path.
        """
        ...


def compile_value(value: Json, path: str, *, keep_types: bool = False) -> CompiledValue:
    """Compiles every template in ``value``, a JSON value or a struct of such.

    With ``keep_types`` a string that is exactly one ``{{ expression }}`` becomes what the expression gives, else text.

    Raises:
        TemplateError: a string is no valid template.
    """
    if isinstance(value, str):
        if not ENGINE.is_template(value):
            return _Constant(value)
        return _Text(ENGINE.compile(value, path, keep_type=keep_types), path)
    if isinstance(value, msgspec.Struct):
        parts = {key: compile_value(getattr(value, key), f"{path}.{key}") for key in value.__struct_fields__}
        own = {key: each for key, each in parts.items() if not each.is_constant}
        return _Struct(value, own) if own else _Constant(value)
    if isinstance(value, Mapping):
        pairs = {key: compile_value(each, f"{path}.{key}", keep_types=keep_types) for key, each in value.items()}
        changing = {key: each for key, each in pairs.items() if not each.is_constant}
        return _Map(value, changing) if changing else _Constant(value)
    if isinstance(value, list | tuple):
        items = [compile_value(each, f"{path}[{no}]", keep_types=keep_types) for no, each in enumerate(value)]
        places = {no: each for no, each in enumerate(items) if not each.is_constant}
        return _List(value, places) if places else _Constant(value)
    return _Constant(value)


class _Constant:
    __slots__ = ("_value",)

    is_constant = True

    def __init__(self, value: Json) -> None:
        self._value = value

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        return self._value


class _Text:
    __slots__ = ("_path", "_text")

    is_constant = False

    def __init__(self, text: CompiledText, path: str) -> None:
        self._text = text
        self._path = path

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        return self._text.render(context, budget or Budget(), self._path)


class _Map:
    __slots__ = ("_changing", "_value")

    is_constant = False

    def __init__(self, value: Mapping[str, Json], changing: dict[str, CompiledValue]) -> None:
        self._value = value
        self._changing = changing

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        budget = budget or Budget()
        return {**self._value, **{key: each.render(context, budget) for key, each in self._changing.items()}}


class _Struct:
    __slots__ = ("_changing", "_value")

    is_constant = False

    def __init__(self, value: msgspec.Struct, changing: dict[str, CompiledValue]) -> None:
        self._value = value
        self._changing = changing

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        budget = budget or Budget()
        changes = {key: each.render(context, budget) for key, each in self._changing.items()}
        return msgspec.structs.replace(self._value, **changes)


class _List:
    """Lists and tuples; the result is of the same type."""

    __slots__ = ("_changing", "_value")

    is_constant = False

    def __init__(self, value: list[Json] | tuple[Json, ...], changing: dict[int, CompiledValue]) -> None:
        self._value = value
        self._changing = changing

    def render(self, context: Mapping[str, Value], budget: Budget | None = None) -> Json:
        budget = budget or Budget()
        items = list(self._value)
        for no, each in self._changing.items():
            items[no] = each.render(context, budget)
        return type(self._value)(items)
