"""A process with one ant on the memory broker; runs the script given and prints what it says, until it is killed."""

import asyncio
import sys
from pathlib import Path

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.errors import FormicaryError
from formicary.ids import AntId
from formicary.log import configure
from formicary.testing.owner import ScriptedOwner, shell


async def main(home: Path, script: str) -> None:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "lone", SystemClock())
    store = LocalStore(home / "artifacts")
    await store.open()
    config = AntConfig(id=AntId("ant-1"), home=home)
    ant = Ant(bus, make_executors(("SHELL",)), store, config, SystemClock())
    try:
        await ant.start()
        say("ready")
        owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
        await owner.send(owner.dispatch(shell(script)))
        await ant.wait()
    except FormicaryError as exc:
        say(f"{type(exc).__name__}: {exc}")
    finally:
        await ant.stop()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


configure("warning", "json")
asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
