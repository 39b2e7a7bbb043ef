"""``limits``: what a script may use, in a definition and in the settings of an ant."""

from dataclasses import dataclass

from executors.specs import Limits
from formicary.model.parse_kinds import Duration, Key, Number, Record, Schema
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node
from formicary.model.quantities import parse_duration, parse_size

#: Less memory than this lets not even a shell start.
_LEAST_MEMORY_BYTES = 1024 * 1024
_MOST_BYTES = 2**60
_MOST_COUNT = 2**20


@dataclass(frozen=True)
class Size:
    """A size, as bytes."""

    def convert(self, node: Node, path: Path, problems: Problems) -> int:
        """Returns the bytes."""
        try:
            return _size(node.text)
        except ValueError as error:
            problems.add(path, str(error))
        return _LEAST_MEMORY_BYTES

    def schema(self) -> Schema:
        """Returns the schema of a size."""
        return {"type": ["string", "integer"], "examples": ["512Mi", "1.5Gi", "1GB"]}


LIMITS = Record(
    name="limits",
    keys={
        "cpu_time": Key(Duration(is_positive=True), "Processor time of each process, as ulimit -t: seconds of work."),
        "memory": Key(Size(), "Memory, such as 512Mi."),
        "open_files": Key(Number(16, _MOST_COUNT), "Open files of each process."),
        "processes": Key(Number(1, _MOST_COUNT), "Processes and threads at a time."),
    },
)
_FIELDS = {"cpu_time": "cpu_time_s", "memory": "memory_bytes"}


def make_limits(values: dict[str, float]) -> Limits:
    """Returns the limits that the values of ``LIMITS`` describe."""
    return Limits(**{_FIELDS.get(word, word): value for word, value in values.items()})  # type: ignore[arg-type]


def parse_limits(text: str) -> Limits:
    """Returns the limits of ``cpu_time=1h,memory=2Gi,open_files=4096,processes=512``, or of some of these.

    Raises:
        ValueError: a word is unknown or a value wrong; the text says what would be right.
    """
    values: dict[str, float] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        word, separator, value = (part.strip() for part in pair.partition("="))
        if not separator or word not in LIMITS.keys:
            raise ValueError(f'"{pair[:40]}" is no limit; write {", ".join(f"{known}=…" for known in LIMITS.keys)}')
        values[word] = _value(word, value)
    return make_limits(values)


def _value(word: str, text: str) -> float:
    if word == "memory":
        return _size(text)
    if word == "cpu_time":
        seconds = parse_duration(text)
        if seconds <= 0:
            raise ValueError("cpu_time: the duration must be longer than 0")
        return seconds
    kind = LIMITS.keys[word].kind
    assert isinstance(kind, Number)
    if not text.isdecimal() or not kind.low <= int(text) <= kind.high:
        raise ValueError(f'{word}: "{text[:40]}" is no whole number from {kind.low} to {kind.high}')
    return int(text)


def _size(text: str) -> int:
    size_bytes = parse_size(text)
    if not _LEAST_MEMORY_BYTES <= size_bytes <= _MOST_BYTES:
        raise ValueError(f'"{text[:40]}" is out of range: at least 1Mi')
    return size_bytes
