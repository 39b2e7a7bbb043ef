"""Outputs that a script writes: ``::set-output name=K::V`` lines on stdout and ``K=V`` lines in ``$FORMICARY_OUTPUT``.

A value that is JSON keeps its type (``3``, ``true``, ``[1, 2]``, ``"text"``); any other is the string as written.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from formicary.ant.values import OUTPUTS_LIMIT_BYTES
from formicary.errors import DataError

Json = Any  # a JSON value

#: What a line begins with that sets an output.
PREFIX: Final = "::set-output name="
#: The file may be this large: lines that are overwritten by later ones count too.
_FILE_LIMIT_BYTES: Final = 4 * OUTPUTS_LIMIT_BYTES


def parse_line(line: str) -> tuple[str, Json]:
    """Returns name and value of a line of the log that begins with ``PREFIX``: secrets are masked there.

    Raises:
        DataError: the line is not ``::set-output name=K::V``.
    """
    name, separator, text = line[len(PREFIX) :].partition("::")
    if not separator or not name.strip():
        raise DataError("outputs", f"line {line[:80]!r} is not ::set-output name=K::V")
    return name.strip(), parse_value(f"outputs.{name.strip()}", text)


def parse_value(where: str, text: str) -> Json:
    """Returns the JSON value that the text is, or the text."""
    stripped = text.strip()
    try:
        return msgspec.json.decode(stripped)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    except RecursionError:
        raise DataError(where, "is nested too deeply") from None


def read_file(path: Path, told: Callable[[str], str]) -> dict[str, Json]:
    """Returns the outputs of the file, none where it does not exist. Blocks.

    Opened without following links or waiting for a writer: the path belongs to the task, which may have put anything
    there. ``told`` masks what an error quotes.

    Raises:
        DataError: not a regular file, too large, not UTF-8, or a line is not ``K=V``; the line is named.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise DataError("FORMICARY_OUTPUT", f"cannot be read: {exc.strerror}") from exc
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError("FORMICARY_OUTPUT", "is no regular file any more")
        data = file.read(_FILE_LIMIT_BYTES + 1)
    if len(data) > _FILE_LIMIT_BYTES:
        raise DataError("FORMICARY_OUTPUT", f"exceeds {_FILE_LIMIT_BYTES} bytes; store large values as artifacts")
    return parse_file(data, told)


def parse_file(data: bytes, told: Callable[[str], str]) -> dict[str, Json]:
    """Returns the outputs of the file's content; a later line for the same name wins.

    ``told`` masks what an error quotes: a part of a secret, or one with escapes, is not recognised in the error.

    Raises:
        DataError: not UTF-8, or a line is not ``K=V``.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise DataError("FORMICARY_OUTPUT", f"is not UTF-8 at byte {exc.start}") from exc
    outputs: dict[str, Json] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, separator, value = line.removesuffix("\r").partition("=")
        if not separator or not name.strip():
            raise DataError(f"FORMICARY_OUTPUT line {number}", f"{told(line)[:80]!r} is not K=V")
        outputs[name.strip()] = parse_value(f"outputs.{name.strip()}", value)
    return outputs
