"""Reading the files that people name."""

import sys
from pathlib import Path

from formicary.errors import DefinitionError, InvalidInputError, Problem

#: More than any definition may have; the parser names the true limit.
_MOST_BYTES = 64 * 1024 * 1024


def read_text(file: str) -> str:
    """Returns the text of a file; ``-`` is stdin.

    Raises:
        InvalidInputError: it cannot be read, or is not UTF-8.
    """
    if not file:
        raise InvalidInputError("FILE is empty; name a YAML file, or - for standard input")
    try:
        if file == "-":
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidInputError(f"{file}: larger than {_MOST_BYTES} bytes; is it a definition?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        problem = Problem(message="is not UTF-8", line=line, column=column, hint="save the file as UTF-8")
        raise DefinitionError([problem], file) from error
