"""Renders whole documents (``dynamic_template_tasks``) in a process of their own, which a hard limit ends."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from formicary.template.engine import ENGINE
from formicary.template.errors import TemplateError

Json = Any  # a JSON value

#: How long a document may take, in seconds; the start of the process is not counted.
LIMIT_S = 2.0
#: How long the process may take to start, in seconds.
_START_LIMIT_S = 30.0
#: Steps and characters of one document.
_MAX_STEPS, _MAX_CHARS = 5_000_000, 16 * 1024 * 1024

_FOLDER = str(Path(__file__).resolve().parents[2])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from formicary.template.document_worker import main; main()"


class _Answer(msgspec.Struct):
    text: str = ""
    error: str | None = None


async def render_document(text: str, params: Mapping[str, Json], *, limit_s: float = LIMIT_S) -> str:
    """Returns the text of a document rendered with ``params``; the process is gone when this returns or is cancelled.

    A param must not hold template marks: what comes out is read as a definition, whose templates are rendered again.

    Raises:
        TemplateError: the document is no valid template, uses what is not defined, or takes longer than ``limit_s``.
    """
    _check_params(params, "params")
    request = {"text": text, "variables": dict(params), "max_steps": _MAX_STEPS, "max_chars": _MAX_CHARS}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _PROGRAM, _FOLDER, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=1024
    )
    try:
        return _text(await _converse(process, msgspec.json.encode(request), limit_s))
    finally:
        await _end(process)


async def _converse(process: Process, request: bytes, limit_s: float) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            await process.stdout.readline()
        async with asyncio.timeout(limit_s):
            process.stdin.write(request)
            process.stdin.close()
            answer = await process.stdout.read(-1)
            await process.wait()
            return answer
    except TimeoutError:
        raise TemplateError("document", f"the document is not rendered after {limit_s:g} s; loop less") from None
    except ConnectionError:
        return b""


def _text(answer: bytes) -> str:
    try:
        decoded = msgspec.json.decode(answer, type=_Answer)
    except msgspec.DecodeError:
        raise TemplateError("document", "rendering the document takes too much memory or time") from None
    if decoded.error is not None:
        raise TemplateError("document", decoded.error)
    return decoded.text


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    await process.wait()


def _check_params(value: Json, path: str) -> None:
    if isinstance(value, str):
        if ENGINE.is_template(value):
            raise TemplateError(path, 'a param of a dynamic document must not hold "{{", "{%" or "{#"')
    elif isinstance(value, Mapping):
        for key, each in value.items():
            _check_params(each, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for no, each in enumerate(value):
            _check_params(each, f"{path}[{no}]")
