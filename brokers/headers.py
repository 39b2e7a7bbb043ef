"""Headers as bytes, for servers that have no text headers of their own."""

import json
from collections.abc import Mapping


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Returns headers as JSON; empty where there are none."""
    return json.dumps(dict(headers), ensure_ascii=False, separators=(",", ":")).encode() if headers else b""


def decode_headers(data: bytes) -> dict[str, str]:
    """Returns what ``encode_headers`` was given; of anything else, nothing."""
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
