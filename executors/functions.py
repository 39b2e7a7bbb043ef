"""From ``package.module:name`` to a function, with errors that name what would be right."""

import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from executors.errors import SpecRefusedError

_SHAPE = re.compile(r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)")


@dataclass(frozen=True, slots=True)
class Function:
    """A resolved function and how it must be called."""

    target: Callable[..., Any]
    is_async: bool


def add_python_paths(paths: Sequence[Path]) -> None:
    """Puts folders in front of ``sys.path``, in their order, once."""
    for path in reversed(paths):
        entry = str(path.resolve())
        if entry not in sys.path:
            sys.path.insert(0, entry)


def check_shape(reference: str) -> tuple[str, str]:
    """Returns module and name.

    Raises:
        SpecRefusedError: it is no ``package.module:name``.
    """
    match = _SHAPE.fullmatch(reference)
    if match is None:
        hint = reference[::-1].replace(".", ":", 1)[::-1] if ":" not in reference and "." in reference else ""
        raise SpecRefusedError(_with_hint(f"function: {reference!r} is not of the form package.module:name", [hint]))
    return match["module"], match["name"]


def resolve(reference: str) -> Function:
    """Imports the module and returns the function. Runs user code: never call it in the ant's loop.

    Raises:
        SpecRefusedError: says what is missing and offers the nearest name.
    """
    module_name, name = check_shape(reference)
    module = _import(module_name)
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            raise SpecRefusedError(_missing_name(module, target, part))
        target = getattr(target, part)
    if not callable(target):
        raise SpecRefusedError(
            f"function: {reference} is {type(target).__name__}, which cannot be called; name a function"
        )
    is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004 - asks whether it is async
    return Function(target, is_async)


def _import(name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise SpecRefusedError(f"function: module {name} needs {exc.name}, which is not installed here") from exc
        hints = difflib.get_close_matches(name, _siblings(exc.name), n=1)
        where = "; add its folder with --python-path or install it where the ant runs"
        raise SpecRefusedError(_with_hint(f"function: no module {exc.name}", hints) + where) from exc
    except (Exception, SystemExit) as exc:  # a module's top level may raise anything
        raise SpecRefusedError(f"function: module {name} fails when imported: {type(exc).__name__}: {exc}") from exc


def _siblings(missing: str) -> list[str]:
    """Returns the modules that stand where the missing one was looked for."""
    parent, _, _ = missing.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    prefix = f"{parent}." if parent else ""
    return [prefix + info.name for info in pkgutil.iter_modules(path)]


def _missing_name(module: ModuleType, owner: Any, name: str) -> str:
    names = [candidate for candidate in dir(owner) if callable(getattr(owner, candidate, None))]
    where = f"{module.__name__} ({getattr(module, '__file__', None) or 'built in'})"
    return _with_hint(f"function: no {name!r} in {where}", difflib.get_close_matches(name, names, n=1))


def _with_hint(message: str, hints: Iterable[str]) -> str:
    hint = next(iter(hints), "")
    return f"{message}; did you mean {hint}?" if hint else message
