"""Over Pulsar: a topic without partitions, in the namespace of the colony; the key is the partition key."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pulsar
import pulsar.asyncio

NAMESPACE = "public/default"


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

    async def listen(self, topic: str) -> AsyncIterator[bytes]:
        """Returns an iterator over all messages from now on."""
        reader = await self._client.create_reader(_name(topic), pulsar.MessageId.latest)
        return self._follow(reader)

    async def _follow(self, reader: Any) -> AsyncIterator[bytes]:
        while True:
            yield (await reader.read_next()).data()

    async def close(self) -> None:
        """Disconnects by the blocking call: the thread that answers the other may outlive the process and abort it."""
        await asyncio.to_thread(self._client._client.close)


def _name(topic: str) -> str:
    return f"persistent://{NAMESPACE}/{topic}"
