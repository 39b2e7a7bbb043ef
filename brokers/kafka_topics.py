"""Topics of Kafka: made with the settings that durability needs, and checked where they exist."""

from collections.abc import Iterable
from typing import Any, Final

import structlog
from aiokafka import errors as kafka
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from brokers.kafka_durability import judged

log = structlog.get_logger(__name__)

#: Copies that durability asks for, and how many of them have to confirm a message.
WANTED_REPLICATION: Final = 3
WANTED_IN_SYNC: Final = 2

#: Deleted records leave the disk by whole files of this size; Kafka's own, a gibibyte, is much for each shard's log.
_SEGMENT_BYTES: Final = 128 * 2**20

_TOPIC_EXISTS: Final = 36
_CHECKED: Final = ("max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable")


class Topics:
    """The topics that are known to be there, with one partition each."""

    def __init__(self, url: str, *, replication: int, retention_s: float, max_message_bytes: int) -> None:
        self._url = url
        self._replication = replication
        self._retention_s = retention_s
        self._max_message_bytes = max_message_bytes
        self._known: set[str] = set()
        self._admin: Any = None

    async def open(self, admin: Any) -> None:
        """Chooses the number of copies, where the URL does not say, and logs if it is too small."""
        self._admin = admin
        brokers = len((await admin.describe_cluster())["brokers"])
        self._replication = self._replication or min(WANTED_REPLICATION, brokers)
        if self._replication > brokers:
            log.warning("kafka_servers_too_few", url=self._url, replication=self._replication, servers=brokers)
        if self._replication < WANTED_IN_SYNC:
            log.warning(
                "kafka_durability_weak", url=self._url, replication=self._replication, wanted=WANTED_REPLICATION
            )

    def forget_all(self) -> None:
        """Has every topic looked at again when it is used the next time."""
        self._known.clear()

    async def ensure(self, topics: Iterable[str]) -> None:
        """Makes the topics that do not exist, and checks those that others made.

        Raises:
            BrokerRefusedError: one of them has several partitions, or takes smaller messages only.
        """
        missing = [topic for topic in topics if topic not in self._known]
        if not missing:
            return
        config = {
            "max.message.bytes": str(self._max_message_bytes),
            "retention.ms": str(int(self._retention_s * 1000)),
            "min.insync.replicas": str(max(1, self._replication - 1)),
            "segment.bytes": str(_SEGMENT_BYTES),
        }
        new = [NewTopic(topic, 1, self._replication, topic_configs=config) for topic in missing]
        response = await self._admin.create_topics(new)
        for _, code, *_ in response.topic_errors:
            if code == kafka.InvalidReplicationFactorError.errno:
                raise BrokerUnavailableError(self._url, await self._too_few())
            if code not in (0, _TOPIC_EXISTS):
                raise kafka.for_code(code)
        found = [topic for topic, code, *_ in response.topic_errors if code == _TOPIC_EXISTS]
        if found:
            await self._check(found)
        self._known.update(missing)

    async def _too_few(self) -> str:
        count = len((await self._admin.describe_cluster())["brokers"])
        there = "one server of the cluster is" if count == 1 else f"{count} servers of the cluster are"
        return (
            f"topics need {self._replication} copies, as option replication says, and {there} there; "
            f"write replication={count} or less, or wait for more servers"
        )

    async def _check(self, topics: list[str]) -> None:
        copies: dict[str, int] = {}
        for facts in await self._admin.describe_topics(topics):
            partitions = facts["partitions"]
            if len(partitions) > 1:
                reason = f"topic {facts['topic']} has {len(partitions)} partitions; Formicary reads topics of one"
                raise BrokerRefusedError(self._url, reason)
            copies[facts["topic"]] = len(partitions[0]["replicas"]) if partitions else self._replication
        for topic, settings in (await self._settings(topics)).items():
            limit_bytes = int(settings.get("max.message.bytes", self._max_message_bytes))
            if limit_bytes < self._max_message_bytes:
                reason = f"topic {topic} has max.message.bytes {limit_bytes}; it must be {self._max_message_bytes}"
                raise BrokerRefusedError(self._url, reason)
            found = judged(copies.get(topic, self._replication), settings)
            weak = {item.setting: item.value for item in found if not item.is_met}
            if weak and self._replication >= WANTED_IN_SYNC:  # else it was said when the connection was opened
                log.warning("kafka_durability_weak", url=self._url, topic=topic, settings=weak)

    async def _settings(self, topics: list[str]) -> dict[str, dict[str, str]]:
        wanted = dict.fromkeys(_CHECKED)
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic, dict(wanted)) for topic in topics]
        found: dict[str, dict[str, str]] = {}
        for response in await self._admin.describe_configs(resources):
            for code, _, _, topic, entries in response.resources:
                if code:
                    reason = kafka.for_code(code).__name__
                    log.info("kafka_durability_unknown", url=self._url, topic=topic, reason=reason)
                else:
                    found[topic] = {entry[0]: entry[1] for entry in entries}
        return found
