"""YAML text -> a tree of nodes with positions, safely: bounded in size, depth and alias expansion.

Rules that differ from PyYAML's loader:
- plain scalars follow the YAML 1.2 core schema, so ``no``, ``on`` and ``1:30`` are text;
- keys are text, as written (``3`` and ``"3"`` are the same key), and a key given twice is an error;
- tags are refused, but for ``!!str``; ``<<`` merges mappings, the written key wins;
- an alias is charged with what it stands for, so a small text cannot become a large document.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from formicary.errors import DefinitionError, Problem
from formicary.model.parse_problems import Path

Scalar = Any  # str, int, float, bool or None

#: The largest document that is read at all.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
#: How deep mappings and lists may be nested.
MAX_DEPTH = 64
#: How much aliases may add to a document: characters, and 8 for each node.
MAX_ALIAS_WEIGHT = 4 * 1024 * 1024

_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_NUMBER_START = frozenset("0123456789+-.")
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


class Node:
    """A value of the document: ``value`` is a scalar, a ``list[Node]`` or a ``dict[str, Node]``.

    ``text`` is a scalar as written; ``keys`` are a mapping's key nodes. Lines and columns count from 1.
    """

    __slots__ = ("column", "keys", "line", "text", "value", "weight")

    def __init__(self, mark: Any, value: Any, text: str = "") -> None:
        self.line: int = mark.line + 1
        self.column: int = mark.column + 1
        self.value = value
        self.text = text
        self.keys: dict[str, Node] | None = None
        self.weight = 8 + len(text)

    @property
    def kind(self) -> str:
        """What it is, in words for people."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        names = {str: "text", bool: "true or false", int: "a number", float: "a number", type(None): "empty"}
        return names[type(self.value)]


def read_document(data: str | bytes, file: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> tuple[Node, list[Problem]]:
    """Reads one document.

    Returns:
        Its root and the mistakes that did not keep the rest from being read (keys given twice, tags …).

    Raises:
        DefinitionError: the text cannot be read any further.
    """
    text = decode(data, file, max_bytes)
    composer = _Composer(text)
    try:
        root = composer.compose()
    except _Refused as refusal:
        raise DefinitionError([*composer.problems, refusal.problem], file) from None
    except yaml.reader.ReaderError as error:
        raise DefinitionError([*composer.problems, _character_problem(error, text)], file) from None
    except yaml.YAMLError as error:
        raise DefinitionError([*composer.problems, _syntax_problem(error)], file) from None
    return root, composer.problems


def decode(data: str | bytes, file: str, max_bytes: int) -> str:
    """Returns the text of a document.

    Raises:
        DefinitionError: it is too large, no UTF-8 or holds characters that no YAML text may hold.
    """
    size = len(data) if isinstance(data, bytes) else _utf8_size(data, file)
    if size > max_bytes:
        limit = f"{max_bytes // 1024} KiB"
        raise DefinitionError([Problem(message=f"the document has {size:,} bytes; at most {limit} are read")], file)
    if isinstance(data, str):
        return data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"the document is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        problem = Problem(message=message, line=line, column=column, hint="save the file as UTF-8")
        raise DefinitionError([problem], file) from None


def _utf8_size(text: str, file: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        problem = Problem(message=f"the document is no Unicode text: a lone surrogate at offset {error.start}")
        raise DefinitionError([problem], file) from None


def locate(root: Node, path: Path, *, at_key: bool) -> tuple[Node, Path]:
    """Returns the node at ``path`` (its key node, with ``at_key``), or the nearest one above it, with its path."""
    node = root
    for place, step in enumerate(path):
        inner = node.value
        if isinstance(inner, dict) and isinstance(step, str) and step in inner:
            is_end = at_key and place == len(path) - 1
            node = (node.keys or {})[step] if is_end else inner[step]
        elif isinstance(inner, list) and isinstance(step, int) and step < len(inner):
            node = inner[step]
        else:
            return node, path[:place]
    return node, path


def locator(root: Node) -> Callable[[Path, bool], tuple[int, int, Path]]:
    """Returns a function that gives line, column and path of what is written at a path below ``root``."""

    def find(path: Path, at_key: bool) -> tuple[int, int, Path]:
        node, written = locate(root, path, at_key=at_key)
        return node.line, node.column, written

    return find


def _resolve(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _character_problem(error: yaml.reader.ReaderError, text: str) -> Problem:
    before = text.encode()[: error.position].decode("utf-8", "ignore")  # libyaml counts bytes
    hint = "" if error.character is None else f"remove U+{error.character:04X}, or write it escaped, in double quotes"
    column = len(before) - (before.rfind("\n") + 1) + 1
    message = f"no valid YAML: {error.reason}"
    return Problem(message=message, hint=hint, line=before.count("\n") + 1, column=column)


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    message = f"no valid YAML: {reason}" + (f" {context}" if context else "")
    hint = ""
    if "found character" in str(reason) and "start any token" in str(reason):
        hint = "indent with spaces, not tabs; quote a text that begins with %, @ or `"
    elif "mapping values are not allowed" in str(reason):
        hint = 'quote a text that holds ": "'
    if mark is None:
        return Problem(message=message, hint=hint)
    return Problem(message=message, hint=hint, line=mark.line + 1, column=mark.column + 1)


_START = yaml.Mark("", 0, 0, 0, "", 0)


class _Refused(Exception):
    def __init__(self, mark: Any, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.problem = Problem(message=message, hint=hint, line=mark.line + 1, column=mark.column + 1)


class _Composer:
    """Builds nodes from libyaml's events, with a stack of its own: no recursion, whatever the text."""

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._anchors: dict[str, Node] = {}
        self._alias_weight = 0

    def compose(self) -> Node:
        root: Node | None = None
        stack: list[_Open] = []
        for event in self._events():
            kind = type(event)
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                node = self._close(stack.pop())
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open(event, stack)
                continue
            else:
                node = self._leaf(event)
            if stack:
                self._add(stack[-1], node)
            else:
                root = node
        if root is None:
            raise _Refused(_START, "the document is empty", "begin with job_type: NAME")
        return root

    def _events(self) -> Iterator[Any]:
        loader = yaml.CSafeLoader(self._text)
        documents = 0
        try:
            while loader.check_event():
                event: Any = loader.get_event()
                kind = type(event)
                if kind is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        raise _Refused(event.start_mark, "a second document begins here", "upload one job per file")
                elif kind not in _FRAME_EVENTS:
                    yield event
        finally:
            loader.dispose()

    def _open(self, event: Any, stack: list["_Open"]) -> None:
        if len(stack) >= MAX_DEPTH:
            raise _Refused(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
        self._check_tag(event)
        is_mapping = type(event) is yaml.MappingStartEvent
        stack.append(_Open(Node(event.start_mark, {} if is_mapping else []), event.anchor))

    def _leaf(self, event: Any) -> Node:
        if type(event) is yaml.AliasEvent:
            return self._alias(event)
        text = event.value
        if "\0" in text:
            self._report(event.start_mark, "the text holds a NUL character", "no database and no shell takes one")
        if event.tag is not None:
            self._check_tag(event)
            node = Node(event.start_mark, text, text)
        else:
            node = Node(event.start_mark, text if event.style else _resolve(text), text)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _Refused(event.start_mark, f"no anchor &{event.anchor} is complete before this alias")
        self._alias_weight += node.weight
        if self._alias_weight > MAX_ALIAS_WEIGHT:
            raise _Refused(event.start_mark, "the aliases stand for too much text", "write fewer or smaller aliases")
        return node

    def _check_tag(self, event: Any) -> None:
        if event.tag is None or event.tag in _TEXT_TAGS:
            return
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._report(event.start_mark, f"the tag {tag[:60]} is not allowed", "remove it: types follow from the keys")

    def _report(self, mark: Any, message: str, hint: str = "") -> None:
        is_node = isinstance(mark, Node)
        line, column = (mark.line, mark.column) if is_node else (mark.line + 1, mark.column + 1)
        self.problems.append(Problem(message=message, hint=hint, line=line, column=column))

    def _add(self, place: "_Open", node: Node) -> None:
        owner = place.node
        owner.weight += node.weight
        if type(owner.value) is list:
            owner.value.append(node)
        elif place.key is None:
            place.key = node
        else:
            self._pair(owner, place, place.key, node)
            place.key = None

    def _pair(self, owner: Node, place: "_Open", key: Node, node: Node) -> None:
        if type(key.value) in (dict, list):
            hint = 'a text that begins with {{ needs quotes: "{{ … }}"'
            self._report(key, "a key must be text", hint)
            return
        if key.text == "<<" and key.value == "<<":
            place.merges.append(node)
            return
        if owner.keys is None:
            owner.keys = {}
        if key.text in owner.keys:
            self._report(key, f'the key "{key.text[:60]}" is given twice', f"first in line {owner.keys[key.text].line}")
            return
        owner.keys[key.text] = key
        owner.value[key.text] = node

    def _close(self, place: "_Open") -> Node:
        node = place.node
        for merged in place.merges:
            self._merge(node, merged)
        if place.anchor is not None:
            self._anchors[place.anchor] = node
        return node

    def _merge(self, owner: Node, merged: Node) -> None:
        sources = merged.value if isinstance(merged.value, list) else [merged]
        for source in sources:
            if not isinstance(source.value, dict):
                self._report(merged, "<< merges mappings only", "write <<: *anchor of a mapping")
                return
            owner.keys = owner.keys or {}
            for key, value in source.value.items():
                if key not in owner.value:
                    owner.value[key] = value
                    owner.keys[key] = (source.keys or {})[key]


class _Open:
    """A mapping or list that is being read."""

    __slots__ = ("anchor", "key", "merges", "node")

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.merges: list[Node] = []


_FRAME_EVENTS = frozenset({yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentEndEvent})
