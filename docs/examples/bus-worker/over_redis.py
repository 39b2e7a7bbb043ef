"""Over Redis: a topic is a stream; an entry has the fields ``k`` (key), ``b`` (body) and ``h`` (headers, as JSON)."""

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

#: A request that a worker has had for so long without an end is given to another, in milliseconds.
CLAIM_MS = 60_000
#: How long a look for new requests waits, in milliseconds.
BLOCK_MS = 5_000


@dataclass
class RedisDelivery:
    """An entry of the stream."""

    redis: Any
    topic: str
    service: str
    entry_id: bytes
    body: bytes

    async def done(self) -> None:
        """Acknowledges the entry and deletes it: a stream keeps what is acknowledged."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xack(self.topic, self.service, self.entry_id)
            pipe.xdel(self.topic, self.entry_id)
            await pipe.execute()


class RedisBus:
    """One client."""

    def __init__(self, url: str) -> None:
        # Blocking reads take longer than the driver's own time limit.
        self._redis = Redis.from_url(url, socket_timeout=None, protocol=2)
        self._consumer = str(uuid.uuid4())

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when the server has the message."""
        await self._redis.xadd(topic, {"k": key, "b": body})

    async def consume(self, topic: str, service: str) -> AsyncIterator[RedisDelivery]:
        """Returns an iterator over the requests that this worker gets."""
        with suppress(ResponseError):  # the group exists
            await self._redis.xgroup_create(topic, service, id="0", mkstream=True)
        return self._follow(topic, service)

    async def _follow(self, topic: str, service: str) -> AsyncIterator[RedisDelivery]:
        while True:
            entries = (await self._redis.xautoclaim(topic, service, self._consumer, CLAIM_MS, count=1))[1]
            if not entries:
                streams = {topic: ">"}
                found = await self._redis.xreadgroup(service, self._consumer, streams, count=1, block=BLOCK_MS)
                entries = found[0][1] if found else []
            for entry_id, fields in entries:
                yield RedisDelivery(self._redis, topic, service, entry_id, fields[b"b"])

    async def close(self) -> None:
        """Disconnects."""
        await self._redis.aclose()
