"""The kinds of values a key can take: each converts a node and describes itself as JSON Schema.

A kind reports every mistake to ``Problems`` and then returns its default, so that reading goes on.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node
from formicary.model.quantities import DURATION_PATTERN, parse_duration

Json = Any  # a JSON value
Schema = dict[str, Json]

#: Names of jobs, tasks, tags and labels.
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}$"
_NAME = re.compile(NAME_PATTERN)
NAME_HINT = "use 1 to 100 letters, digits and _ - . : and begin with a letter, digit or _"
_MAX_INT = 2**63 - 1


class Kind(Protocol):
    """One kind of value."""

    def convert(self, node: Node, path: Path, problems: Problems) -> Json:
        """Returns the value of ``node``; reports what is wrong with it."""
        ...

    def schema(self) -> Schema:
        """Returns the JSON Schema of the kind."""
        ...


def _expected(problems: Problems, path: Path, node: Node, what: str, hint: str = "") -> None:
    problems.add(path, f"expected {what}, got {node.kind}", hint)


@dataclass(frozen=True)
class Text:
    """Text. ``is_loose`` takes ``true`` and numbers too, as they are written."""

    is_loose: bool = False
    max_length: int | None = None
    pattern: str | None = None
    pattern_hint: str = ""
    default: str | None = ""

    def convert(self, node: Node, path: Path, problems: Problems) -> str | None:
        """Returns the text as written."""
        value = node.value
        if type(value) is not str:
            if isinstance(value, dict | list) or value is None or not self.is_loose:
                _expected(problems, path, node, "text", self._hint(node))
                return self.default
            return node.text
        if self.max_length is not None and len(value) > self.max_length:
            problems.add(path, f"{len(value)} characters; at most {self.max_length} are taken")
        elif self.pattern is not None and "{{" not in value and not re.search(self.pattern, value):
            problems.add(path, f'"{value[:60]}" is no valid value', self.pattern_hint)
        return value

    @staticmethod
    def _hint(node: Node) -> str:
        if isinstance(node.value, dict):
            return 'a text that holds ": " or begins with { needs quotes'
        return f'write "{node.text[:40]}" in quotes' if node.text else ""

    def schema(self) -> Schema:
        """Returns the schema of text."""
        schema: Schema = {"type": ["string", "number", "boolean"] if self.is_loose else "string"}
        if self.max_length is not None:
            schema["maxLength"] = self.max_length
        if self.pattern is not None:
            schema["pattern"] = rf"{self.pattern}|\{{\{{"  # a template may become anything
        return schema


@dataclass(frozen=True)
class Name:
    """A name of 1 to 100 characters; numbers are taken as written."""

    def convert(self, node: Node, path: Path, problems: Problems) -> str:
        """Returns the name."""
        if isinstance(node.value, dict | list) or node.value is None:
            _expected(problems, path, node, "a name")
            return ""
        if not _NAME.fullmatch(node.text):
            problems.add(path, f'"{node.text[:100]}" is no valid name', NAME_HINT)
            return ""
        return node.text

    def schema(self) -> Schema:
        """Returns the schema of a name."""
        return {"type": ["string", "number"], "pattern": NAME_PATTERN}


@dataclass(frozen=True)
class Flag:
    """``true`` or ``false``."""

    def convert(self, node: Node, path: Path, problems: Problems) -> bool:
        """Returns the truth value."""
        if type(node.value) is bool:
            return node.value
        _expected(problems, path, node, "true or false", "write true or false, without quotes")
        return False

    def schema(self) -> Schema:
        """Returns the schema of a truth value."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number:
    """A number between two bounds, both included."""

    low: float
    high: float
    is_whole: bool = True

    def convert(self, node: Node, path: Path, problems: Problems) -> Json:
        """Returns the number."""
        value = node.value
        word = "a whole number" if self.is_whole else "a number"
        if type(value) is not int and (self.is_whole or type(value) is not float):
            _expected(problems, path, node, word, f"write it like {int(self.low)}, without quotes")
        elif not self.low <= value <= self.high:
            problems.add(path, f"{node.text[:40]} is out of range", f"{word} from {self.low:g} to {self.high:g}")
        else:
            return value
        return int(self.low)

    def schema(self) -> Schema:
        """Returns the schema of a number."""
        return {"type": "integer" if self.is_whole else "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Duration:
    """A length of time, as seconds."""

    is_positive: bool = False

    def convert(self, node: Node, path: Path, problems: Problems) -> float:
        """Returns the seconds."""
        if isinstance(node.value, dict | list) or node.value is None:
            _expected(problems, path, node, "a duration", "write it like 30s, 5m or 1h30m")
            return 1.0
        if type(node.value) is not str and node.value != 0:
            _expected(problems, path, node, "a duration with its unit", f"did you mean {node.text[:20]}s?")
            return 1.0
        try:
            seconds = parse_duration(node.text)
        except ValueError as error:
            problems.add(path, str(error))
            return 1.0
        if self.is_positive and seconds <= 0:
            problems.add(path, "the duration must be longer than 0")
        return seconds

    def schema(self) -> Schema:
        """Returns the schema of a duration."""
        return {
            "type": ["string", "integer"],
            "maximum": 0,
            "minimum": 0,
            "pattern": DURATION_PATTERN,
            "examples": ["500ms", "30s", "5m", "2h", "7d", "1h30m", "PT5M"],
        }


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]
    descriptions: Mapping[str, str] = field(default_factory=dict, hash=False)

    def convert(self, node: Node, path: Path, problems: Problems) -> str:
        """Returns the word."""
        if node.text in self.words and not isinstance(node.value, dict | list):
            return node.text
        hint = problems.suggest(node.text, self.words) or f"one of {', '.join(self.words)}"
        what = f'"{node.text[:60]}"' if node.text else node.kind
        problems.add(path, f"{what} is no valid value", hint)
        return self.words[0]

    def schema(self) -> Schema:
        """Returns the schema of the words."""
        if self.descriptions:
            return {"oneOf": [{"const": word, "description": self.descriptions[word]} for word in self.words]}
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class ListOf:
    """A list; ``takes_one`` takes a bare item for a list of one. Empty items are mistakes."""

    item: Kind
    takes_one: bool = False
    is_unique: bool = False
    min_items: int = 0
    max_items: int | None = None

    def convert(self, node: Node, path: Path, problems: Problems) -> tuple[Json, ...]:
        """Returns the converted items."""
        if not isinstance(node.value, list):
            if self.takes_one and node.value is not None and not isinstance(node.value, dict):
                return (self.item.convert(node, path, problems),)
            _expected(problems, path, node, "a list", "write [a, b] or one '- item' a line")
            return ()
        if len(node.value) < self.min_items:
            problems.add(path, "the list is empty")
        if self.max_items is not None and len(node.value) > self.max_items:
            problems.add(path, f"{len(node.value):,} items; at most {self.max_items:,} are taken")
            return ()
        items = tuple([self.item.convert(each, (*path, no), problems) for no, each in enumerate(node.value)])
        if self.is_unique and len(set(items)) != len(items):
            self._report_repeated(items, path, problems)
        return items

    @staticmethod
    def _report_repeated(items: tuple[Json, ...], path: Path, problems: Problems) -> None:
        seen = set()
        for no, item in enumerate(items):
            if item and item in seen:
                problems.add((*path, no), f'"{item}" is listed twice')
            seen.add(item)

    def schema(self) -> Schema:
        """Returns the schema of the list."""
        item = self.item.schema()
        schema: Schema = {"type": "array", "items": item}
        if self.min_items:
            schema["minItems"] = self.min_items
        if self.is_unique:
            schema["uniqueItems"] = True
        return {"anyOf": [item, schema]} if self.takes_one else schema


@dataclass(frozen=True)
class TextMap:
    """A mapping of names to text; numbers, ``true`` and nothing are taken as written."""

    has_names: bool = False

    def convert(self, node: Node, path: Path, problems: Problems) -> dict[str, str]:
        """Returns the mapping."""
        if not isinstance(node.value, dict):
            _expected(problems, path, node, "a mapping", "write {name: value} or one 'name: value' a line")
            return {}
        values = {}
        for key, each in node.value.items():
            if isinstance(each.value, dict | list):
                _expected(
                    problems, (*path, key), each, "text", 'a text that begins with { or [ needs quotes: "{{ … }}"'
                )
            elif self.has_names and not _NAME.fullmatch(key):
                problems.add((*path, key), f'"{key[:100]}" is no valid name', NAME_HINT, at_key=True)
            else:
                values[key] = each.text
        return values

    def schema(self) -> Schema:
        """Returns the schema of the mapping."""
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


@dataclass(frozen=True)
class AnyJson:
    """Any JSON value."""

    def convert(self, node: Node, path: Path, problems: Problems) -> Json:
        """Returns the value."""
        value = node.value
        if isinstance(value, dict):
            return {key: self.convert(each, (*path, key), problems) for key, each in value.items()}
        if isinstance(value, list):
            return [self.convert(each, (*path, no), problems) for no, each in enumerate(value)]
        if type(value) is float and not math.isfinite(value):
            problems.add(path, f"{node.text} is no JSON value", "use a finite number or text")
        elif type(value) is int and not -_MAX_INT <= value <= _MAX_INT:
            problems.add(path, f"{node.text} does not fit into 64 bits", "write it as text, in quotes")
        return value

    def schema(self) -> Schema:
        """Returns the schema of anything."""
        return {}


@dataclass(frozen=True)
class JsonMap:
    """A mapping of names to JSON values."""

    def convert(self, node: Node, path: Path, problems: Problems) -> dict[str, Json]:
        """Returns the mapping."""
        if isinstance(node.value, dict):
            values: dict[str, Json] = AnyJson().convert(node, path, problems)
            return values
        _expected(problems, path, node, "a mapping", "write {name: value} or one 'name: value' a line")
        return {}

    def schema(self) -> Schema:
        """Returns the schema of the mapping."""
        return {"type": "object"}


@dataclass(frozen=True)
class Key:
    """A key of a record: its kind and what it is for."""

    kind: Kind
    description: str
    is_required: bool = False
    default: Json = None


@dataclass(frozen=True)
class Record:
    """A mapping with known keys. Keys that are not written are left out of the result.

    ``reserved`` keys are words of the language that do nothing yet, ``elsewhere`` says where else a key belongs.
    """

    keys: Mapping[str, Key] = field(hash=False)
    reserved: frozenset[str] = frozenset()
    name: str = "mapping"
    elsewhere: Mapping[str, str] = field(default_factory=dict, hash=False)

    def convert(self, node: Node, path: Path, problems: Problems) -> dict[str, Json]:
        """Returns the converted values by key."""
        if not isinstance(node.value, dict):
            _expected(problems, path, node, f"a mapping ({self.name})")
            return {}
        values = {}
        for word, each in node.value.items():
            key = self.keys.get(word)
            if key is None:
                self.report_unknown(word, path, problems)
            else:
                values[word] = key.kind.convert(each, (*path, word), problems)
        for word, key in self.keys.items():
            if key.is_required and word not in node.value:
                hint = f"write {word}: {key.description[:1].lower()}{key.description[1:].rstrip('.')}"
                problems.add(path, f'the key "{word}" is missing', hint)
        return values

    def report_unknown(self, word: str, path: Path, problems: Problems) -> None:
        """Reports a key that is not one of the record's."""
        if word in self.reserved:
            problems.add((*path, word), f'"{word}" is not supported yet', "remove it", at_key=True)
            return
        if word in self.elsewhere:
            problems.add((*path, word), self.elsewhere[word], at_key=True)
            return
        hint = problems.suggest(word, self.keys) or _some_of(self.keys)
        problems.add((*path, word), f'unknown key "{word[:60]}" in {self.name}', hint, at_key=True)

    def schema(self) -> Schema:
        """Returns the schema of the mapping."""
        schema: Schema = {
            "type": "object",
            "properties": {word: key_schema(key) for word, key in self.keys.items()},
            "additionalProperties": False,
        }
        required = [word for word, key in self.keys.items() if key.is_required]
        if required:
            schema["required"] = required
        return schema


def key_schema(key: Key) -> Schema:
    """Returns the schema of a key's values, with its description and default."""
    schema = {"description": key.description, **key.kind.schema()}
    if key.default is not None:
        schema["default"] = key.default
    return schema


def _some_of(words: Mapping[str, Key]) -> str:
    listed = ", ".join(list(words)[:12])
    return f"known keys are {listed}" + (", …" if len(words) > 12 else "")
