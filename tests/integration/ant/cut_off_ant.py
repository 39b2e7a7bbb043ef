"""A process with one ant that runs a function which speaks, and is cut off from its broker until its lease has ended.

Arguments: home folder, the length of its leases. It is given the next task when its warden would long have killed it.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from brokers.base import Edge, Entry, Message, Position
from brokers.errors import BrokerUnavailableError
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant.warden import PATIENCE_S
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.tasks import TaskStarted
from formicary.ids import AntId
from formicary.log import configure
from formicary.testing.owner import ScriptedOwner, dummy, python


class RemoteBroker(MemoryBroker):
    """A broker that can be out of reach."""

    is_away = False

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes, where the broker can be reached."""
        self._check()
        await super().publish(messages)

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Reads, where the broker can be reached."""
        self._check()
        return await super().read(topic, after, max_count, min(timeout_s, 0.1))

    def _check(self) -> None:
        if self.is_away:
            raise BrokerUnavailableError("memory://", "cut off")


async def speak() -> None:
    """Says something now and then."""
    while True:
        sys.stdout.write("still here\n")
        await asyncio.sleep(0.05)


async def main(home: Path, lease_s: float) -> None:
    """Plays the outage."""
    broker = RemoteBroker(MemoryServer())
    await broker.open()
    store = LocalStore(home / "artifacts")
    await store.open()
    config = AntConfig(id=AntId("ant-1"), home=home, lease_s=lease_s, survives_process=True, broker_url="memory://")
    ant = Ant(Bus(broker, "lone", SystemClock()), make_executors(("PYTHON", "DUMMY")), store, config, SystemClock())
    owner = ScriptedOwner(Bus(broker, "owner", SystemClock()), lambda: ant.registration.incarnation)
    answers = asyncio.create_task(owner.answer())
    await ant.start()
    await owner.send(owner.dispatch(python(f"{Path(__file__).stem}:speak")))
    await owner.report(TaskStarted)

    before, broker.is_away = ant.registration.incarnation, True
    while ant.registration.incarnation == before:  # noqa: ASYNC110 - the end of a lease tells nobody but queens
        await asyncio.sleep(0.01)
    await asyncio.sleep(PATIENCE_S + 0.5)
    broker.is_away = False

    number = 1
    while not any(getattr(event, "task_no", 0) and isinstance(event, TaskStarted) for event in await owner.read(0.1)):
        await owner.send(owner.dispatch(dummy(duration_s=0.1), number))
        number += 1
    answers.cancel()
    await ant.stop()


if __name__ == "__main__":
    configure("warning", "json")
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
