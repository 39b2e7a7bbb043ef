"""The AsyncAPI 3 document of the topics: public ones with the schemas of their messages, inner ones with names only."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import yaml

from formicary import __version__
from formicary.events.catalogue import EXAMPLES, INNER, PUBLIC, Channel
from formicary.events.meanings import meaning_of

_NO_EDIT: Final = "# Made by `python -m formicary.events.describe` from the event types; a test finds it stale.\n"
_TEMPLATE: Final = "#/components/schemas/{name}"
#: Label of a public channel -> what a colony does with it.
_ACTIONS: Final = {"commands": "receive", "deadCommands": "send", "replies": "send", "lifecycle": "send"}


def document_text() -> str:
    """Returns the document as YAML."""
    return _NO_EDIT + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)


def document() -> dict[str, Any]:
    """Returns the document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Formicary",
            "version": __version__,
            "description": "Jobs over a message broker. What to reckon with and the wire: docs/events.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {channel.label: _channel(channel) for channel in (*PUBLIC, *INNER)},
        "operations": _operations(),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    facts = (
        _sentence(channel.direction),
        f"Key: {channel.key}.",
        f"Reading: {channel.reading}.",
        f"Kept: {channel.kept}.",
    )
    found: dict[str, Any] = {
        "address": channel.name.replace("<", "{").replace(">", "}").replace("ant id", "antId"),
        "description": " ".join(facts).replace("`", ""),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _message_names(channel)},
    }
    _, opening, variable = found["address"].partition("{")
    if opening:
        found["parameters"] = {variable.rstrip("}"): {}}
    if channel in INNER:
        found["x-inner"] = True
    return found


def _message_names(channel: Channel) -> list[str]:
    return [kind.__name__ for kind in channel.types] or ["DeadCommand"]


def _operations() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for channel in PUBLIC:
        verb = _ACTIONS[channel.label]
        found[f"{verb}{channel.label[0].upper()}{channel.label[1:]}"] = {
            "action": verb,
            "channel": {"$ref": f"#/channels/{channel.label}"},
            "summary": _sentence(channel.direction),
        }
    found["receiveCommands"]["reply"] = {
        "address": {"location": "$message.payload#/reply_to", "description": "The topic that the command names."},
        "channel": {"$ref": "#/channels/replies"},
    }
    return found


def _messages() -> dict[str, Any]:
    public = {kind.__name__: _public_message(kind) for channel in PUBLIC for kind in channel.types}
    inner = {kind.__name__: _inner_message(kind) for channel in INNER for kind in channel.types}
    dead = {
        "DeadCommand": {
            "summary": "A command that was refused, as it came, with the reason in a header.",
            "headers": {"type": "object", "properties": {"formicary-dead-reason": {"type": "string"}}},
            "payload": {},
        }
    }
    return {**public, **dead, **inner}


def _public_message(kind: type[Any]) -> dict[str, Any]:
    example = next(item for item in EXAMPLES if type(item) is kind)
    found: dict[str, Any] = {
        "summary": _words(kind),
        "payload": {"$ref": _TEMPLATE.format(name=kind.__name__)},
        "examples": [{"payload": msgspec.to_builtins(example)}],
    }
    if "correlation_id" in kind.__struct_fields__:
        found["correlationId"] = {"location": "$message.payload#/correlation_id"}
    return found


def _inner_message(kind: type[Any]) -> dict[str, Any]:
    return {"summary": _words(kind), "contentType": "application/vnd.msgpack", "x-inner": True}


def _schemas() -> dict[str, Any]:
    kinds: Sequence[type[Any]] = [kind for channel in PUBLIC for kind in channel.types]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    for kind in kinds:
        for name, field in schemas[kind.__name__]["properties"].items():
            if name != "type":
                _describe(field, meaning_of(kind, name))
    return dict(sorted(schemas.items()))


def _describe(field: dict[str, Any], meaning: str) -> None:
    field["description"] = meaning + "."


def _words(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").replace("``", "").split())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].replace("`", "") + "."
