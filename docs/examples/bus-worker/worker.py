"""A service that does MESSAGING tasks, with the message broker's own client alone.

    python worker.py URL TOPIC

URL is the broker's, as the colony has it: redis://…, kafka://… or pulsar://…. Start as many as you like: they share the
work. What the messages mean is in docs/executors/messaging.md. SIGTERM and SIGINT end it after what it is at.
"""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

#: The service's name at the broker: all that have it share the requests.
SERVICE = "bus-worker"
#: Requests whose answer is remembered, for when they come again.
REMEMBERED = 10_000


class Delivery(Protocol):
    """A request that the broker gives to this worker."""

    body: bytes

    async def done(self) -> None:
        """Tells the broker not to give it to anybody again."""


class Bus(Protocol):
    """What a worker needs of a broker; see ``over_redis.py``, ``over_kafka.py`` and ``over_pulsar.py``."""

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when the broker has the message."""

    async def consume(self, topic: str, service: str) -> AsyncIterator[Delivery]:
        """Returns an iterator over the requests that this one of the service's workers gets."""

    async def close(self) -> None:
        """Disconnects."""


async def connect(url: str) -> Bus:
    """Returns a connection through the client that the URL names."""
    scheme = url.partition("://")[0]
    if scheme == "redis":
        from over_redis import RedisBus

        return RedisBus(url)
    if scheme == "kafka":
        from over_kafka import KafkaBus

        return await KafkaBus.open(url)
    if scheme == "pulsar":
        from over_pulsar import PulsarBus

        return PulsarBus(url)
    raise SystemExit(f"{url.rpartition('@')[2]}: no redis://, kafka:// or pulsar:// URL")


def sum_up(body: dict[str, Any]) -> dict[str, Any]:
    """Does the work: returns the end of the task whose request has this body."""
    numbers = body.get("numbers")
    if not numbers:
        return {"status": "FAILED", "exit_code": 3, "message": "there are no numbers"}
    return {"status": "COMPLETED", "outputs": {"sum": sum(numbers), "count": len(numbers)}}


class Worker:
    """Answers requests. One that comes twice, as brokers may have it, gets the same answer and is done once."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._answers: dict[str, dict[str, Any]] = {}

    async def run(self, topic: str) -> None:
        """Answers what comes to a topic, for ever."""
        async for delivery in await self._bus.consume(topic, SERVICE):
            await self._answer(json.loads(delivery.body))
            await delivery.done()  # after the answer: a worker that dies before leaves the request to another

    async def _answer(self, request: dict[str, Any]) -> None:
        key = request["correlation_id"]
        verdict = self._answers.get(key)
        if verdict is None:
            verdict = self._answers[key] = verdict_on(request["body"])
        if len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]
        reply = {"correlation_id": key, **verdict}
        await self._bus.send(request["reply_to"], key, json.dumps(reply).encode())
        print(f"{key}: {verdict['status']}", flush=True)


def verdict_on(body: Any) -> dict[str, Any]:
    """Returns the end of a task; a defect of the work is one too."""
    try:
        return sum_up(body)
    except Exception as error:  # noqa: BLE001 - a request that makes no sense must not end the worker
        return {"status": "FAILED", "message": f"{type(error).__name__}: {error}"}


async def main(url: str, topic: str) -> None:
    """Works until a signal comes."""
    bus = await connect(url)
    working = asyncio.create_task(Worker(bus).run(topic))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    print(f"works on {topic}", flush=True)
    try:
        await working
    except asyncio.CancelledError:
        print("ends", flush=True)
    finally:
        await bus.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
