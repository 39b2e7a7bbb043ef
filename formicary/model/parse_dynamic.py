"""Documents with ``dynamic_template_tasks: true``: templates as a whole, so they need not be YAML before rendering.

The pre-pass reads the job's own keys only. It blanks out, keeping the lines' numbers: the ``tasks:`` block (up to the
next key that begins a line), and lines that hold nothing but a ``{% … %}`` or ``{# … #}``. What is left must be YAML.
A job key whose value holds a template is left at its default until the document is rendered.
"""

import re

from formicary.errors import DefinitionError
from formicary.model.definition import JobDefinition
from formicary.model.parse_job import HEAD_RECORD, build_job
from formicary.model.parse_problems import Problems
from formicary.model.parse_yaml import MAX_DOCUMENT_BYTES, Node, locator, read_document
from formicary.template.engine import MAX_DOCUMENT_MARKS
from formicary.template.inspect import inspect

_DYNAMIC = re.compile(r"^dynamic_template_tasks[ \t]*:[ \t]*(true|True|TRUE)[ \t]*(#.*)?$", re.MULTILINE)
_TASKS = re.compile(r"^(tasks|\"tasks\"|'tasks')[ \t]*:")
_NEXT_KEY = re.compile(r"^[A-Za-z_\"'][\w\"']*[ \t]*:")
_ONLY_BLOCK = re.compile(r"^\s*(\{%.*%\}|\{#.*#\})\s*$")
_MARKS = ("{{", "{%", "{#")

#: Keys that are needed before the document is rendered, so no template can give them.
_FIXED_KEYS = ("job_type", "max_concurrency", "priority", "required_params", "labels", "dynamic_template_tasks")


def is_dynamic(document: str) -> bool:
    """Tells whether a document is a template as a whole: the key begins a line and says ``true``."""
    return _DYNAMIC.search(document) is not None


def parse_head(document: str, file: str) -> JobDefinition:
    """Returns the job of a dynamic document, without its tasks.

    Raises:
        DefinitionError: its own keys have mistakes, it lists no tasks, or its templates are no valid ones.
    """
    head, has_tasks = _head(document)
    root, mistakes = read_document(head, file, MAX_DOCUMENT_BYTES)
    problems = Problems(locator(root), mistakes)
    if not has_tasks:
        problems.add((), 'the key "tasks" is missing', "begin a line with tasks:")
    _leave_templates_out(root, problems)
    job = build_job(root, HEAD_RECORD, document, problems)
    _check_syntax(document, problems)
    if problems:
        raise DefinitionError(problems.listed(), file)
    return job


def _head(document: str) -> tuple[str, bool]:
    kept: list[str] = []
    is_in_tasks = has_tasks = False
    for line in document.split("\n"):
        if _TASKS.match(line):
            is_in_tasks = has_tasks = True
        elif is_in_tasks and _NEXT_KEY.match(line):
            is_in_tasks = False
        kept.append("" if is_in_tasks or _ONLY_BLOCK.match(line) else line)
    return "\n".join(kept), has_tasks


def _leave_templates_out(root: Node, problems: Problems) -> None:
    if not isinstance(root.value, dict):
        return
    for word, node in list(root.value.items()):
        if not any(mark in _texts(node) for mark in _MARKS) or word == "skip_if":
            continue
        if word in _FIXED_KEYS:
            problems.add((word,), f"{word} is needed before the document is rendered", "write it without a template")
        del root.value[word]


def _texts(node: Node) -> str:
    if isinstance(node.value, dict):
        return " ".join(_texts(each) for each in node.value.values())
    if isinstance(node.value, list):
        return " ".join(_texts(each) for each in node.value)
    return node.text


def _check_syntax(document: str, problems: Problems) -> None:
    mistake = inspect(document, MAX_DOCUMENT_MARKS).mistake
    if mistake is not None:
        problems.add_at(mistake.line, f"no valid template: {mistake.message}")
