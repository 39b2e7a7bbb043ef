"""Checks of values before they leave the ant: what no database takes must never reach the journal."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from formicary.errors import DataError

Json = Any  # a JSON value

#: Outputs of one task, as JSON.
OUTPUTS_LIMIT_BYTES: Final = 256 * 1024
#: Levels of nesting; deeper values exhaust the stack of whoever reads them.
MAX_DEPTH: Final = 64
#: Longest name of an output.
MAX_NAME_CHARS: Final = 200

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**63 - 1


def check_outputs(outputs: Mapping[str, Json], told: Callable[[str], str]) -> None:
    """Checks the outputs of a task. ``told`` masks what an error quotes in part.

    Raises:
        DataError: names the output and what is wrong: no JSON, NUL, a lone surrogate, a number out of range, too large.
    """
    for name, value in outputs.items():
        where = f"outputs.{name}"
        _check_name(name, told)
        if value is not None and value is not True and value is not False:
            _check_size(where, value)
            _check(where, value, 0)
    if len(outputs) > 1:
        _check_total(outputs)


def clean_text(text: str) -> str:
    """Returns a text for people without NUL and lone surrogates."""
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text


def _check_name(name: str, told: Callable[[str], str]) -> None:
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        shown = told(name)[:MAX_NAME_CHARS]
        raise DataError(f"outputs.{shown!r}", f"a name has 1 to {MAX_NAME_CHARS} printable characters")


def _check_size(where: str, value: Json) -> None:
    if isinstance(value, int | float):
        return
    size = _size(where, value)
    if size > OUTPUTS_LIMIT_BYTES:
        raise DataError(where, f"{size} bytes exceed the limit of {OUTPUTS_LIMIT_BYTES}; store it as an artifact")


def _check_total(outputs: Mapping[str, Json]) -> None:
    total = _size("outputs", outputs)
    if total > OUTPUTS_LIMIT_BYTES:
        largest = max(outputs, key=lambda name: _size(name, outputs[name]))
        message = f"all outputs together are {total} bytes, the limit is {OUTPUTS_LIMIT_BYTES}"
        raise DataError(f"outputs.{largest}", f"{message}; store the largest as an artifact")


def _size(where: str, value: Json) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise DataError(where, f"is no JSON value: {exc}") from exc


def _check(where: str, value: Json, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DataError(where, f"is nested deeper than {MAX_DEPTH} levels")
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise DataError(where, f"key {key!r} is not a string")
                check_text(where, key)
                _check(f"{where}.{key}", item, depth + 1)
        case list() | tuple():
            for index, item in enumerate(value):
                _check(f"{where}[{index}]", item, depth + 1)
        case _:
            _check_scalar(where, value)


def _check_scalar(where: str, value: Json) -> None:
    match value:
        case None | bool():
            return
        case str():
            check_text(where, value)
        case int():
            if not _MIN_INT <= value <= _MAX_INT:
                raise DataError(where, "integers have 64 bits; write a larger one as a string")
        case float():
            if not math.isfinite(value):
                raise DataError(where, f"{value} is no JSON number")
        case _:
            raise DataError(where, f"{type(value).__name__} is no JSON value")


def check_text(where: str, text: str) -> None:
    """Checks a string.

    Raises:
        DataError: it has a NUL or a lone surrogate.
    """
    if "\0" in text:
        raise DataError(where, "has a NUL character, which cannot be stored")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(where, "has a lone surrogate, which cannot be stored") from None
