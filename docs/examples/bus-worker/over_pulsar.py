"""Over Pulsar: a topic without partitions, in the namespace of the colony; the key is the partition key."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pulsar
import pulsar.asyncio

NAMESPACE = "public/default"


@dataclass
class PulsarDelivery:
    """A message."""

    consumer: Any
    message: Any
    body: bytes

    async def done(self) -> None:
        """Acknowledges the message."""
        await self.consumer.acknowledge(self.message)


class PulsarBus:
    """One client, which must be closed before the loop is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        token = unquote(parts.password or "")
        self._client = pulsar.asyncio.Client(
            f"pulsar://{parts.netloc.rpartition('@')[2]}",
            authentication=pulsar.AuthenticationToken(token) if token else None,
            logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error),
        )
        self._producers: dict[str, Any] = {}

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when the server has the message."""
        if topic not in self._producers:
            self._producers[topic] = await self._client.create_producer(_name(topic), batching_enabled=False)
        await self._producers[topic].send(body, partition_key=key)

    async def consume(self, topic: str, service: str) -> AsyncIterator[PulsarDelivery]:
        """Returns an iterator over the requests that this worker gets."""
        consumer = await self._client.subscribe(
            _name(topic),
            service,
            consumer_type=pulsar.ConsumerType.Shared,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=1,
        )
        return self._follow(consumer)

    async def _follow(self, consumer: Any) -> AsyncIterator[PulsarDelivery]:
        while True:
            message = await consumer.receive()
            yield PulsarDelivery(consumer, message, message.data())

    async def close(self) -> None:
        """Disconnects by the blocking call: the thread that answers the other may outlive the process and abort it."""
        await asyncio.to_thread(self._client._client.close)


def _name(topic: str) -> str:
    return f"persistent://{NAMESPACE}/{topic}"
