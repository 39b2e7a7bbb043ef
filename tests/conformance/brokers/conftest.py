"""One rig per backend: fresh topics, connections that are closed, and short words for what the suite does a lot."""

import asyncio
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

import pytest

from brokers.base import START, Broker, Delivery, Edge, Entry, Message, Position, Subscription
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer

#: Longest wait for something that must come, in seconds; only a failing test waits it out.
PATIENCE_S = 20.0


class Backend(ABC):
    """A server of the suite."""

    @abstractmethod
    def connect(self) -> Broker:
        """Returns a broker that is not yet opened."""


class MemoryBackend(Backend):
    def __init__(self) -> None:
        self._server = MemoryServer()

    def connect(self) -> Broker:
        return MemoryBroker(self._server)


class Rig:
    """What a test holds: one opened broker, more on demand."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._brokers: list[Broker] = []
        self._numbers = itertools.count()
        self._run = os.urandom(4).hex()

    def topic(self) -> str:
        """Returns a name that no other test uses."""
        return f"conformance.{self._run}.{next(self._numbers)}"

    async def open(self) -> Broker:
        """Returns one more open connection."""
        broker = self.backend.connect()
        self._brokers.append(broker)
        await broker.open()
        return broker

    async def close(self) -> None:
        for broker in self._brokers:
            await broker.close()

    @staticmethod
    def messages(topic: str, *bodies: str, key: str = "k") -> list[Message]:
        return [Message(topic, key, body.encode()) for body in bodies]

    @staticmethod
    async def receive(subscription: Subscription, count: int) -> list[Delivery]:
        """Returns exactly ``count`` deliveries, in the order of their arrival."""
        taken: list[Delivery] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(taken) < count:
                taken += await subscription.receive(count - len(taken), PATIENCE_S)
        return taken

    @staticmethod
    async def read(broker: Broker, topic: str, count: int, after: Position | Edge = START) -> list[Entry]:
        """Returns exactly ``count`` entries behind ``after``."""
        entries: list[Entry] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(entries) < count:
                place = entries[-1].position if entries else after
                entries += await broker.read(topic, place, count - len(entries), PATIENCE_S)
        return entries

    @staticmethod
    def bodies(items: Sequence[Delivery | Entry]) -> list[str]:
        return [item.message.body.decode() for item in items]


@pytest.fixture(params=["memory"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return MemoryBackend()


@pytest.fixture
async def rig(backend: Backend) -> AsyncIterator[Rig]:
    rig = Rig(backend)
    yield rig
    await rig.close()


@pytest.fixture
async def broker(rig: Rig) -> Broker:
    return await rig.open()


@pytest.fixture
def topic(rig: Rig) -> str:
    return rig.topic()
