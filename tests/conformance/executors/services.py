"""A service on a broker in memory, which does what the requests of the tests say."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from brokers.base import START, Broker, Message
from brokers.registry import make_broker
from executors.base import Executor, Stream
from executors.specs import MessagingSpec, ShellSpec
from executors.testing import Specimen
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.exchange import BrokerExchange

TOPIC = "work"
NOBODY = "nobody.listens"
REPLIES = "formicary.replies"


class Service:
    """Answers requests on ``TOPIC``, and anything else by hand."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        clock = SystemClock()
        self.exchange = BrokerExchange(broker, Bus(broker, "test", clock), clock, REPLIES)

    async def run(self) -> None:
        """Replies with what the body of each request is."""
        subscription = await self._broker.subscribe([TOPIC], "service", "one")
        while True:
            deliveries = await subscription.receive(100, 30.0)
            for delivery in deliveries:
                request = json.loads(delivery.message.body)
                if request["body"] is not None:
                    await self.reply(request, **request["body"])
            await subscription.ack(deliveries)

    async def request_on(self, topic: str) -> Message:
        """Returns the one request on a topic."""
        async with asyncio.timeout(40):
            while not (entries := await self._broker.read(topic, START, 10, 0.1)):
                pass
        (entry,) = entries
        return entry.message

    async def requests_on(self, topic: str) -> list[dict[str, Any]]:
        """Returns the requests on a topic so far."""
        return [json.loads(entry.message.body) for entry in await self._broker.read(topic, START, 10, 0.1)]

    async def reply(self, request: dict[str, Any], **verdict: object) -> None:
        """Replies to a request."""
        body = {"correlation_id": request["correlation_id"], **verdict}
        await self.say(request["reply_to"], json.dumps(body).encode())

    async def say(self, topic: str, body: bytes) -> None:
        """Publishes anything."""
        await self._broker.publish([Message(topic, "", body)])


@asynccontextmanager
async def serve() -> AsyncIterator[Service]:
    """A service on a broker of its own."""
    broker = make_broker("memory://")
    await broker.open()
    service = Service(broker)
    running = asyncio.create_task(service.run())
    yield service
    running.cancel()
    await asyncio.wait([running])
    await broker.close()


def request(**verdict: object) -> MessagingSpec:
    return MessagingSpec(topic=TOPIC, body=verdict)


def messaging_specimen(executor: Executor) -> Specimen:
    """Returns the executor with what the suite asks for."""
    lasting = MessagingSpec(topic=NOBODY)
    return Specimen(
        executor=executor,
        success=request(status="COMPLETED"),
        failure=request(status="FAILED", exit_code=3),
        talking=request(status="COMPLETED"),
        said=b"the reply is awaited on formicary.replies",
        said_on=Stream.SYSTEM,
        lasting=lasting,
        stubborn=lasting,
        refused=ShellSpec(),
    )
