"""The brokers' own clients, used as plainly as their documentation does: what ours are measured against."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from brokers.base import START, Broker, Edge, Message, Position
from brokers.registry import make_broker

#: Messages read at once, and how long a read may wait for the first, in milliseconds.
_AT_ONCE = 500
_WAIT_MS = 5000


class Client(Protocol):
    """Sends batches, each confirmed before the next, and reads topics from their beginning."""

    async def open(self, topics: Sequence[str]) -> None:
        """Connects, and makes ready to send to and read from some new topics."""

    async def publish(self, batch: Sequence[Message]) -> None:
        """Sends a batch; returns when the server has it."""

    async def read(self, topic: str, count: int) -> None:
        """Returns when ``count`` further messages were read."""

    async def close(self) -> None:
        """Disconnects."""


class Ours:
    """The backend of a URL, as queens and ants use it."""

    def __init__(self, url: str) -> None:
        self._broker: Broker = make_broker(url)
        self._positions: dict[str, Position | Edge] = {}

    async def open(self, topics: Sequence[str]) -> None:
        await self._broker.open()
        self._positions = dict.fromkeys(topics, START)

    async def publish(self, batch: Sequence[Message]) -> None:
        await self._broker.publish(batch)

    async def read(self, topic: str, count: int) -> None:
        while count > 0:
            entries = await self._broker.read(topic, self._positions[topic], _AT_ONCE, _WAIT_MS / 1000)
            count -= len(entries)
            if entries:
                self._positions[topic] = entries[-1].position

    async def close(self) -> None:
        await self._broker.close()


class Redis:
    """redis-py: a pipeline of XADD, and XREAD."""

    def __init__(self, url: str) -> None:
        import redis.asyncio

        self._client: Any = redis.asyncio.Redis.from_url(url)
        self._positions: dict[str, Any] = {}

    async def open(self, topics: Sequence[str]) -> None:
        self._positions = dict.fromkeys(topics, "0")

    async def publish(self, batch: Sequence[Message]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for message in batch:
            pipe.xadd(message.topic, {b"k": message.key, b"b": message.body})
        await pipe.execute()

    async def read(self, topic: str, count: int) -> None:
        while count > 0:
            answer = await self._client.xread({topic: self._positions[topic]}, count=_AT_ONCE, block=_WAIT_MS)
            for _, entries in answer:
                count -= len(entries)
                self._positions[topic] = entries[-1][0]

    async def close(self) -> None:
        await self._client.aclose()


class Kafka:
    """aiokafka: one producer with acks=all, a consumer a topic."""

    def __init__(self, url: str) -> None:
        self._servers = urlsplit(url).netloc.rpartition("@")[2]
        self._producer: Any = None
        self._consumers: dict[str, Any] = {}

    async def open(self, topics: Sequence[str]) -> None:
        import aiokafka
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._servers)
        await admin.start()
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1) for topic in topics])
        await admin.close()
        self._producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self._servers, acks="all", max_request_size=2**22)
        await self._producer.start()
        for topic in topics:
            consumer = aiokafka.AIOKafkaConsumer(
                topic, bootstrap_servers=self._servers, auto_offset_reset="earliest", fetch_max_wait_ms=100
            )
            await consumer.start()
            self._consumers[topic] = consumer

    async def publish(self, batch: Sequence[Message]) -> None:
        sent = [await self._producer.send(message.topic, message.body, message.key.encode()) for message in batch]
        await asyncio.gather(*sent)

    async def read(self, topic: str, count: int) -> None:
        while count > 0:
            found = await self._consumers[topic].getmany(timeout_ms=_WAIT_MS, max_records=_AT_ONCE)
            count -= sum(map(len, found.values()))

    async def close(self) -> None:
        for consumer in self._consumers.values():
            await consumer.stop()
        await self._producer.stop()


class Pulsar:
    """pulsar-client: a producer and a consumer a topic."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = f"pulsar://{parts.netloc.rpartition('@')[2]}"
        self._token = parts.password
        self._client: Any = None
        self._producers: dict[str, Any] = {}
        self._consumers: dict[str, Any] = {}

    async def open(self, topics: Sequence[str]) -> None:
        import pulsar
        import pulsar.asyncio

        login = pulsar.AuthenticationToken(self._token) if self._token else None
        self._client = pulsar.asyncio.Client(self._url, authentication=login)
        for topic in topics:
            name = f"persistent://public/default/{topic}"
            self._producers[topic] = await self._client.create_producer(name)
            self._consumers[topic] = await self._client.subscribe(
                name, "bare", initial_position=pulsar.InitialPosition.Earliest
            )

    async def publish(self, batch: Sequence[Message]) -> None:
        await asyncio.gather(
            *[self._producers[one.topic].send(one.body, partition_key=one.key or None) for one in batch]
        )

    async def read(self, topic: str, count: int) -> None:
        for _ in range(count):
            message = await self._consumers[topic].receive()
            await self._consumers[topic].acknowledge(message)

    async def close(self) -> None:
        await asyncio.to_thread(self._client._client.close)  # the other may outlive the process and abort it


CLIENTS: dict[str, type[Redis] | type[Kafka] | type[Pulsar]] = {"redis": Redis, "kafka": Kafka, "pulsar": Pulsar}
