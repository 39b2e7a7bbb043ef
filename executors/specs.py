"""What each method runs: rendered values only, ready for the wire.

The same structs, holding templates instead of values, are part of a task's definition.
"""

from typing import Any

import msgspec

Json = Any  # a JSON value; the codecs are where it is checked


class ShellSpec(msgspec.Struct, frozen=True, kw_only=True, tag="SHELL", omit_defaults=True):
    """A script for ``sh -e``; the lines of each list are joined by newlines.

    ``after_script`` runs in a shell of its own whatever happened before, and changes no result.
    """

    script: tuple[str, ...] = ()
    before_script: tuple[str, ...] = ()
    after_script: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class HttpSpec(msgspec.Struct, frozen=True, kw_only=True, tag="HTTP", omit_defaults=True):
    """One HTTP request; ``method`` is one of the HTTP_* task methods, ``body`` JSON, ``form`` URL-encoded."""

    method: str
    url: str
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    body: Json = None
    form: dict[str, str] | None = None


class PythonSpec(msgspec.Struct, frozen=True, kw_only=True, tag="PYTHON", omit_defaults=True):
    """A call of ``package.module:name`` with JSON arguments."""

    function: str
    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = {}
    in_process_pool: bool = False


class DummySpec(msgspec.Struct, frozen=True, kw_only=True, tag="DUMMY", omit_defaults=True):
    """What the strict dummy does, in place of real work; for tests and simulations."""

    exit_code: int = 0
    duration_s: float = 0.0
    lines: tuple[str, ...] = ()
    outputs: dict[str, Json] = {}
    fail_start: bool = False
    ignore_stop: bool = False


Spec = ShellSpec | HttpSpec | PythonSpec | DummySpec

HTTP_METHODS = (
    "HTTP_GET",
    "HTTP_POST_JSON",
    "HTTP_POST_FORM",
    "HTTP_PUT_JSON",
    "HTTP_PUT_FORM",
    "HTTP_PATCH_JSON",
    "HTTP_DELETE",
)
