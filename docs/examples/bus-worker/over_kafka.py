"""Over Kafka: a topic has one partition; key, value and headers are the record's own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

#: Of every topic that the colony uses.
MAX_MESSAGE_BYTES = 4456448


@dataclass
class KafkaDelivery:
    """A record."""

    consumer: Any
    place: TopicPartition
    offset: int
    body: bytes

    async def done(self) -> None:
        """Commits the offset behind the record."""
        await self.consumer.commit({self.place: self.offset + 1})


class KafkaBus:
    """A producer, and a consumer per topic. The workers of a service share partitions: one works, others stand by."""

    def __init__(self, servers: str) -> None:
        self._servers = servers
        self._producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
        self._consumers: list[AIOKafkaConsumer] = []

    @classmethod
    async def open(cls, url: str) -> "KafkaBus":
        """Returns a connection to a cluster without a log-in; with one, add the security settings of your client."""
        bus = cls(urlsplit(url).netloc)
        await bus._producer.start()
        return bus

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when all in-sync replicas have the message."""
        await self._producer.send_and_wait(topic, body, key=key.encode(), partition=0)

    async def consume(self, topic: str, service: str) -> AsyncIterator[KafkaDelivery]:
        """Returns an iterator over the requests that this worker gets."""
        await self._ensure(topic)
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self._servers,
            group_id=service,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        self._consumers.append(consumer)
        return self._follow(consumer)

    async def _follow(self, consumer: AIOKafkaConsumer) -> AsyncIterator[KafkaDelivery]:
        async for record in consumer:
            place = TopicPartition(record.topic, record.partition)
            yield KafkaDelivery(consumer, place, record.offset, record.value)

    async def _ensure(self, topic: str) -> None:
        """Makes a topic that does not exist, as the colony would, which takes no others."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        try:
            if topic not in await admin.list_topics():
                servers = (await admin.describe_cluster())["brokers"]
                config = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
                await admin.create_topics([NewTopic(topic, 1, min(3, len(servers)), topic_configs=config)])
        finally:
            await admin.close()

    async def close(self) -> None:
        """Disconnects."""
        for consumer in self._consumers:
            await consumer.stop()
        await self._producer.stop()
