"""Which log a topic is: Kafka gives every topic an id when it is made; one made anew under its name has another.

The driver's own requests are of versions that know no ids yet.
"""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

_KEY: Final = 3
_VERSION: Final = 10


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]  # the driver has no annotations
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


_NO_ID: Final = bytes(16)


class _Response(Response):  # type: ignore[misc]  # the driver has no annotations
    API_KEY = _KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _RequestStruct(RequestStruct):  # type: ignore[misc]  # the driver has no annotations
    FLEXIBLE_VERSION = True
    API_KEY = _KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Request(Request[_RequestStruct]):  # type: ignore[misc]  # the driver has no annotations
    API_KEY = _KEY

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def prepare(self, versions: dict[int, tuple[int, int]]) -> _RequestStruct:
        oldest, newest = versions[_KEY]
        if not oldest <= _VERSION <= newest:
            raise kafka.IncompatibleBrokerVersion(f"it takes requests for metadata of versions {oldest} to {newest}")
        return self.build(_RequestStruct)

    def build(self, request_struct_class: type[_RequestStruct]) -> _RequestStruct:
        return request_struct_class([(_NO_ID, topic, {}) for topic in self._topics], False, False, False, {})


async def log_ids(client: Any, topics: Sequence[str]) -> dict[str, str]:
    """Returns the ids of those of some topics that exist.

    Raises:
        IncompatibleBrokerVersion: the server is older than Kafka 2.8, whose topics have no ids.
    """
    answer = await client.send(client.get_random_node(), _Request(topics))
    found: dict[str, str] = {}
    for code, topic, log_id, *_ in answer.topics:
        error = kafka.for_code(code)
        if error is kafka.UnknownTopicOrPartitionError:
            continue
        if error not in (kafka.NoError, kafka.LeaderNotAvailableError):
            raise error(topic)
        if log_id == _NO_ID:
            raise kafka.IncompatibleBrokerVersion(f"topic {topic} has no id")
        found[topic] = base64.b64encode(log_id).decode()
    return found
