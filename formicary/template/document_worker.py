"""The process that renders one document: JSON on stdin, JSON on stdout; started and killed by ``document.py``.

It says ``ready`` in a line of its own, so that its start is not taken for the work.
"""

import json
import resource
import sys
from typing import Any

from formicary.template.budget import Budget
from formicary.template.engine import render_document_text
from formicary.template.errors import TemplateError

Json = Any  # a JSON value

#: Beyond these, in bytes and seconds of CPU, the kernel ends the process.
_MAX_MEMORY_BYTES, _MAX_CPU_S = 1024 * 1024 * 1024, 10


def main() -> None:
    """Answers one request."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    request = json.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(_answer(request)).encode())
    sys.stdout.flush()


def _answer(request: Json) -> Json:
    budget = Budget(max_steps=request["max_steps"], max_chars=request["max_chars"])
    try:
        return {"text": render_document_text(request["text"], request["variables"], budget)}
    except TemplateError as error:
        return {"error": error.message}
