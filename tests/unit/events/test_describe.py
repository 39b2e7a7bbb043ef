"""The documents about the bus are complete, true to the types, and not stale."""

import gzip
import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest
import yaml

from formicary.errors import ConflictError, FormicaryError, InvalidInputError, NotFoundError
from formicary.events import topics
from formicary.events.asyncapi import document, document_text
from formicary.events.catalogue import COMMAND_REASONS, EVENT_REASONS, EVENTS, EXAMPLES, INNER, PUBLIC
from formicary.events.codec import AnyEvent, decode_pack
from formicary.events.describe import page_text
from formicary.events.meanings import MEANINGS, meaning_of
from formicary.events.public import Command, LifecycleEvent, Reply
from formicary.ids import AntId
from formicary.queen.command_reading import Unreadable, read_command

DOCS = Path(__file__).parents[3] / "docs"
STALE = "run: python -m formicary.events.describe"
PUBLIC_TYPES = [kind for channel in PUBLIC for kind in channel.types]


def test_the_page_is_not_stale() -> None:
    assert (DOCS / "events.md").read_text(encoding="utf-8") == page_text(), STALE


def test_the_asyncapi_document_is_not_stale() -> None:
    assert (DOCS / "asyncapi.yaml").read_text(encoding="utf-8") == document_text(), STALE


def test_every_event_is_described_once() -> None:
    assert sorted(kind.__name__ for kind in EVENTS) == sorted(kind.__name__ for kind in get_args(AnyEvent))
    assert set(PUBLIC_TYPES) == set(get_args(Command | Reply | LifecycleEvent))
    assert len(PUBLIC_TYPES) == len(set(PUBLIC_TYPES))


def test_every_topic_is_described() -> None:
    named = {channel.name for channel in (*PUBLIC, *INNER)}
    used = {
        *(getattr(topics, name) for name in ("ANTS", "ANSWERS", "LOGS", "COMMANDS", "LIFECYCLE")),
        topics.results(7).replace("7", "<shard>"),
        topics.launch(7).replace("7", "<shard>"),
        topics.inbox(AntId("x9"), topics_are_dear=False).replace("x9", "<ant id>"),
    }
    assert used <= named
    groups = {topics.QUEENS, topics.LOG_WRITERS}
    text = " ".join(channel.reading for channel in (*PUBLIC, *INNER))
    assert [group for group in groups if f"`{group}`" not in text] == []


@pytest.mark.parametrize("kind", [*PUBLIC_TYPES, *EVENTS], ids=lambda kind: kind.__name__)
def test_every_field_has_a_meaning(kind: type[Any]) -> None:
    fields = [field.name for field in msgspec.structs.fields(kind)]
    assert [field for field in fields if not meaning_of(kind, field)] == []


def test_no_meaning_is_left_of_a_field_that_went() -> None:
    kinds = [*PUBLIC_TYPES, *EVENTS]
    fields = {field.name for kind in kinds for field in msgspec.structs.fields(kind)}
    exact = {f"{kind.__name__}.{field.name}" for kind in kinds for field in msgspec.structs.fields(kind)}
    assert [name for name in MEANINGS if name not in (exact if "." in name else fields)] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_every_example_is_read_as_what_it_is(example: Any) -> None:
    body = msgspec.json.encode(example)
    assert msgspec.json.decode(body, type=type(example)) == example
    if isinstance(example, get_args(Command)):
        assert read_command(body) == example


def test_every_public_type_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(PUBLIC_TYPES)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(InvalidInputError, 0), (NotFoundError, 1), (ConflictError, 2)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_reasons_of_refused_commands_are_the_codes_of_the_errors(error: type[FormicaryError], reason: int) -> None:
    assert COMMAND_REASONS[reason].begins == error.code


def test_the_reasons_of_unreadable_events_begin_as_said() -> None:
    sent_at = "2026-03-01T06:00:00Z"
    bodies = [
        b"nonsense",
        msgspec.msgpack.encode([99, "sender", 1, sent_at, []]),
        msgspec.msgpack.encode([1, "sender", 1, sent_at, [["Unheard"]]]),
        msgspec.msgpack.encode([1, "sender", 1, sent_at, [["JobLaunched", "no shard", []]]]),
    ]
    found = [decode_pack(body).poison[0].reason for body in bodies]
    wanted = [reason.begins.rstrip("…").rstrip() for reason in EVENT_REASONS]
    assert [text.startswith(begin) for text, begin in zip(found, wanted, strict=True)] == [True] * 4


def test_a_command_that_is_none_is_refused_with_the_first_reason() -> None:
    found = read_command(b'{"type": "SubmitJob"}')
    assert isinstance(found, Unreadable)
    assert found.error.code == COMMAND_REASONS[0].begins


def test_a_number_that_no_type_takes_does_not_hide_the_rest_of_a_command() -> None:
    found = read_command(b'{"type": "SubmitJob", "job_type": "x", "params": {"n": 1e999}, "reply_to": "mine"}')
    assert isinstance(found, Unreadable)
    assert (found.kind, found.reply_to) == ("SubmitJob", "mine")
    assert "out of range" in str(found.error)


def test_the_asyncapi_document_is_one() -> None:
    packed = (Path(__file__).parent / "asyncapi-3.0.0.json.gz").read_bytes()
    schema = json.loads(gzip.decompress(packed))
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(yaml.safe_load(document_text()))] == []
    broken = document() | {"channels": {"x": {"address": 7}}}
    assert not validator.is_valid(broken)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    whole = yaml.safe_load(document_text())

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for item in node for ref in references(item)] if isinstance(node, list) else []

    def is_there(ref: str) -> bool:
        node = whole
        for part in ref.removeprefix("#/").split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        return node is not None

    found = references(whole)
    assert len(found) > 20
    assert [ref for ref in found if not is_there(ref)] == []


@pytest.mark.parametrize("kind", PUBLIC_TYPES, ids=lambda kind: kind.__name__)
def test_every_example_fits_its_schema(kind: type[Any]) -> None:
    whole = yaml.safe_load(document_text())
    message = whole["components"]["messages"][kind.__name__]
    schema = {**message["payload"], "components": whole["components"]}
    jsonschema.Draft202012Validator(schema).validate(message["examples"][0]["payload"])
    broken = message["examples"][0]["payload"] | {"type": "Other"}
    assert not jsonschema.Draft202012Validator(schema).is_valid(broken)
