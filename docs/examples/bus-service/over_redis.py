"""Over Redis: a topic is a stream; an entry has the fields ``k`` (key), ``b`` (body) and ``h`` (headers, as JSON)."""

from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.exceptions import ResponseError


class RedisBus:
    """One client."""

    def __init__(self, url: str) -> None:
        # Blocking reads take longer than the driver's own time limit.
        self._redis = Redis.from_url(url, socket_timeout=None, protocol=2)

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when the server has the message."""
        await self._redis.xadd(topic, {"k": key, "b": body})

    async def listen(self, topic: str) -> AsyncIterator[bytes]:
        """Returns an iterator over all messages from now on."""
        try:
            place = (await self._redis.xinfo_stream(topic))["last-generated-id"]
        except ResponseError:
            place = "0-0"  # no such stream yet
        return self._follow(topic, place)

    async def _follow(self, topic: str, place: bytes | str) -> AsyncIterator[bytes]:
        while True:
            for _, entries in await self._redis.xread({topic: place}, count=100, block=5000):
                for entry_id, fields in entries:
                    place = entry_id
                    yield fields[b"b"]

    async def close(self) -> None:
        """Disconnects."""
        await self._redis.aclose()
