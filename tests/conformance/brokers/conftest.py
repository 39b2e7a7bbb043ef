"""One rig per backend: fresh topics, connections that are closed, and short words for what the suite does a lot."""

import asyncio
import itertools
import os
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from brokers.base import START, Broker, Delivery, Edge, Entry, Message, Position, Subscription
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from brokers.registry import make_broker

#: Backends with a server, and the options of their URLs: short times, since here nothing is far away.
OPTIONS = {"redis": "claim_after_s=3", "kafka": "claim_after_s=3", "pulsar": ""}
SCRIPT = Path(__file__).parents[3] / "scripts" / "servers"

#: Longest wait for something that must come, in seconds; only a failing test waits it out.
PATIENCE_S = 40.0


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


class ServerBackend(Backend):
    """A real server, run by ``scripts/servers`` in a folder of its own; started once, and again after each restart."""

    def __init__(self, name: str, folder: Path, options: str) -> None:
        self.name = name
        self.folder = folder
        self._options = options
        self.urls: dict[str, str] = {}

    def connect(self) -> Broker:
        return make_broker(self.url)

    @property
    def url(self) -> str:
        url = self.urls[f"FORMICARY_TEST_{self.name.upper()}_URL"]
        return url + ("&" if "?" in url else "?") + self._options if self._options else url

    @property
    def url_with_login(self) -> str:
        """Returns the URL of a listener without TLS that asks for a password or token."""
        return self.urls.get(f"FORMICARY_TEST_{self.name.upper()}_SASL_URL", self.url)

    async def delete_underneath(self, topic: str) -> None:
        """Deletes a topic as an operator would, behind the back of all clients."""
        if self.name == "kafka":
            admin = AIOKafkaAdminClient(bootstrap_servers=self.url.partition("://")[2].partition("?")[0])
            await admin.start()
            await admin.delete_topics([topic])
            while topic in await admin.list_topics():  # until then what is published goes down with it
                pass
            await admin.close()
            return
        broker = self.connect()
        await broker.open()
        await broker.delete_topic(topic)
        await broker.close()

    def start(self) -> None:
        for line in self._run("start").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.urls[name] = shlex.split(value)[0]

    def stop(self, *arguments: str) -> None:
        self._run("stop", *arguments)

    def _run(self, action: str, *arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), action, self.name, "--dir", str(self.folder), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout


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
    async def receive(subscription: Subscription, count: int, patience_s: float = PATIENCE_S) -> list[Delivery]:
        """Returns exactly ``count`` deliveries, in the order of their arrival."""
        taken: list[Delivery] = []
        async with asyncio.timeout(patience_s):
            while len(taken) < count:
                taken += await subscription.receive(count - len(taken), patience_s)
        return taken

    @staticmethod
    async def read(
        broker: Broker, topic: str, count: int, after: Position | Edge = START, patience_s: float = PATIENCE_S
    ) -> list[Entry]:
        """Returns exactly ``count`` entries behind ``after``."""
        entries: list[Entry] = []
        async with asyncio.timeout(patience_s):
            while len(entries) < count:
                place = entries[-1].position if entries else after
                entries += await broker.read(topic, place, count - len(entries), patience_s)
        return entries

    @staticmethod
    def bodies(items: Sequence[Delivery | Entry]) -> list[str]:
        return [item.message.body.decode() for item in items]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ServerBackend]]:
    folder = tmp_path_factory.mktemp("servers")
    started: dict[str, ServerBackend] = {}

    def get(name: str) -> ServerBackend:
        if name not in started:
            started[name] = ServerBackend(name, folder, OPTIONS[name])
            started[name].start()
        return started[name]

    yield get
    for server in started.values():
        server.stop("--purge")


@pytest.fixture(scope="session")
def make_rig() -> Callable[[Backend], Rig]:
    return Rig


@pytest.fixture(params=["memory", *OPTIONS])
def backend(request: pytest.FixtureRequest, servers: Callable[[str], ServerBackend]) -> Backend:
    return MemoryBackend() if request.param == "memory" else servers(request.param)


@pytest.fixture(params=OPTIONS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], ServerBackend]) -> ServerBackend:
    return servers(request.param)


@pytest.fixture
async def server_rig(server: ServerBackend) -> AsyncIterator[Rig]:
    rig = Rig(server)
    yield rig
    await rig.close()


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


@pytest.fixture
def unused() -> str:
    """The name of a topic, for tests that hold no rig; users with limited grants see it too."""
    return f"conformance.{os.urandom(4).hex()}"
