"""What Kafka's settings mean for messages that it has confirmed. The producer's side, ``acks=all``, is fixed here."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from brokers.base import Durability

#: A topic's partition is lost only with so many servers at once, less one.
_REPLICAS: Final = 2


async def durability(admin: Any, topic: str) -> Sequence[Durability]:
    """Returns what holds for a topic, by itself or by the servers' defaults."""
    return judged(await _replicas(admin, topic), await _settings(admin, topic))


def judged(replicas: int, settings: Mapping[str, str | None]) -> Sequence[Durability]:
    """Returns what a topic's number of copies and its settings mean."""
    in_sync = settings.get("min.insync.replicas")
    unclean = settings.get("unclean.leader.election.enable")
    return [
        Durability(
            "replication.factor",
            str(replicas),
            f"{_REPLICAS} or more (3 is usual)",
            replicas >= _REPLICAS,
            "a server that loses its power or its disk takes confirmed messages with it",
        ),
        Durability(
            "min.insync.replicas",
            in_sync,
            "2 or more, below the replication factor",
            in_sync is not None and _REPLICAS <= int(in_sync) <= replicas,
            "a message is confirmed when one server has it, in memory",
        ),
        Durability(
            "unclean.leader.election.enable",
            unclean,
            "false",
            unclean == "false",
            "a server that missed messages may become the leader, and they are gone",
        ),
    ]


async def _settings(admin: Any, topic: str) -> dict[str, str]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    # A resource is: error code, error message, type, name, entries; an entry begins with name and value.
    return {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}


async def _replicas(admin: Any, topic: str) -> int:
    (found,) = await admin.describe_topics([topic])
    return min((len(partition["replicas"]) for partition in found["partitions"]), default=0)
