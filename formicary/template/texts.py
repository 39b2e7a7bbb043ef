"""How the values of templates become text and JSON values."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from jinja2.runtime import Undefined

from formicary.template.budget import Budget
from formicary.template.errors import NotAllowedError

Json = Any  # a JSON value
Value = Any  # whatever a template handles


def to_text(value: Value, budget: Budget) -> str:
    """Returns text as it is, and everything else as JSON: ``true``, ``null``, ``[1,2]``, ``{"a":1}``."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is int:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return repr(value)
    return json_text(value, budget).decode()


def json_text(value: Value, budget: Budget) -> bytes:
    """Returns a value as JSON; characters are charged when they are put out, not here."""
    chars = budget.chars
    encoded = msgspec.json.encode(to_json(value, budget))
    budget.chars = chars
    budget.spend_text(len(encoded))
    return encoded


def to_json(value: Value, budget: Budget) -> Json:
    """Returns a JSON value made of lists, dicts and scalars only; a copy, whose size the budget bounds."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        budget.write(len(value))
        return str(value)
    budget.spend(1)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key, budget): to_json(each, budget) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [to_json(each, budget) for each in value]
    raise NotAllowedError(f"a {type(value).__name__} is no JSON value")


def _number(value: float) -> float:
    if isinstance(value, int):
        if value.bit_length() > 63:
            raise NotAllowedError("the number does not fit into 64 bits")
    elif not math.isfinite(value):
        raise NotAllowedError(f"{value} is no JSON value")
    return value


def _key(key: Value, budget: Budget) -> str:
    text = key if isinstance(key, str) else to_text(key, budget)
    budget.write(len(text))
    return text
