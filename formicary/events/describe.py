"""Writes the documents about the bus from the event types: ``python -m formicary.events.describe [FOLDER]``.

``events.md`` is for people, ``asyncapi.yaml`` for tools. A test compares both with the files in ``docs``.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from formicary.events.asyncapi import document_text
from formicary.events.catalogue import (
    COMMAND_REASONS,
    EVENT_REASONS,
    EXAMPLES,
    INNER,
    PUBLIC,
    Channel,
    Reason,
)
from formicary.events.meanings import meaning_of
from formicary.events.prose import (
    BROKERS,
    COMMANDS,
    DEAD_LETTERS,
    DELIVERY,
    HEAD,
    INNER_DEAD,
    INNER_HEAD,
    LIFECYCLE,
    REPLIES,
)

_TYPES: dict[type[inspect.Type], str] = {
    inspect.AnyType: "JSON",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.NoneType: "null",
    inspect.DateTimeType: "time",
    inspect.RawType: "bytes",
}


def main() -> None:
    """Writes both documents into a folder, by default ``docs``."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (folder / "events.md").write_text(page_text(), encoding="utf-8")
    (folder / "asyncapi.yaml").write_text(document_text(), encoding="utf-8")


def page_text() -> str:
    """Returns the page about events."""
    commands, dead, replies, lifecycle = PUBLIC
    parts = [
        HEAD,
        _topics_table("Topics", PUBLIC),
        BROKERS,
        DELIVERY,
        _public_part("Commands", commands, COMMANDS),
        _public_part("Answers", replies, REPLIES),
        f"## Dead letters of commands\n\n{DEAD_LETTERS.format(topic=dead.name)}\n\n{_reasons_table(COMMAND_REASONS)}",
        _public_part("What becomes of jobs", lifecycle, LIFECYCLE),
        INNER_HEAD,
        _topics_table("Inner topics", INNER, level="###"),
        "\n\n".join(_inner_part(channel) for channel in INNER),
        f"### Dead letters of events\n\n{INNER_DEAD}\n\n{_reasons_table(EVENT_REASONS)}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _topics_table(title: str, channels: Sequence[Channel], level: str = "##") -> str:
    rows = [
        f"| `{channel.name}` | {channel.direction} | {channel.key} | {channel.reading} | {channel.kept} |"
        for channel in channels
    ]
    head = "| topic | who → whom | key | how it is read | how long it is kept |\n| --- | --- | --- | --- | --- |"
    return f"{level} {title}\n\n{head}\n" + "\n".join(rows)


def _public_part(title: str, channel: Channel, prose: str) -> str:
    return "\n\n".join([f"## {title}", prose.strip(), *(_public_type(kind) for kind in channel.types)])


def _public_type(kind: type[Any]) -> str:
    example = next(item for item in EXAMPLES if type(item) is kind)
    body = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
    return f"### {kind.__name__}\n\n{_first_words(kind)}\n\n```json\n{body}\n```\n\n{_fields_table(kind)}"


def _fields_table(kind: type[Any]) -> str:
    rows = [f"| `type` | string | yes | `{kind.__name__}` |"]
    for field, shape in zip(msgspec.structs.fields(kind), _shapes(kind), strict=True):
        is_needed = field.required
        rows.append(f"| `{field.name}` | {shape} | {'yes' if is_needed else 'no'} | {meaning_of(kind, field.name)}. |")
    return "| field | type | always there | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)


def _inner_part(channel: Channel) -> str:
    parts = [f"### `{channel.name}`"]
    for kind in channel.types:
        rows = [
            f"| {number} | `{field.name}` | {shape} | {meaning_of(kind, field.name)}. |"
            for number, (field, shape) in enumerate(
                zip(msgspec.structs.fields(kind), _shapes(kind), strict=True), start=1
            )
        ]
        head = "| place | field | type | meaning |\n| --- | --- | --- | --- |"
        parts.append(f"**{kind.__name__}.** {_first_words(kind)}\n\n{head}\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _reasons_table(reasons: Sequence[Reason]) -> str:
    rows = [f"| `{reason.begins}` | {reason.means} | {reason.helps} |" for reason in reasons]
    return "| the reason begins with | it means | what helps |\n| --- | --- | --- |\n" + "\n".join(rows)


def _first_words(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").replace("``", "`").split())


def _shapes(kind: type[Any]) -> Iterator[str]:
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType)
    for field in found.fields:
        yield _shape(field.type)


def _shape(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _shape(kind.type)
        case inspect.UnionType():
            return " or ".join(_shape(item) for item in kind.types)
        case inspect.DictType():
            return f"object of {_shape(kind.value_type)}"
        case inspect.VarTupleType() | inspect.ListType():
            return f"list of {_shape(kind.item_type)}"
        case inspect.StructType():
            return "object" if not kind.array_like else "list"
    return _TYPES[type(kind)]


if __name__ == "__main__":
    main()
