"""A process with one ant on the memory broker, which runs the script given, until it is killed.

Arguments: home folder, script, and optionally the length of leases that can lapse.
"""

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


async def main(home: Path, script: str, lease_s: float) -> None:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "lone", SystemClock())
    store = LocalStore(home / "artifacts")
    await store.open()
    config = AntConfig(
        id=AntId("ant-1"),
        home=home,
        lease_s=lease_s or 60.0,
        survives_process=lease_s > 0,
        broker_url="memory://",
    )
    ant = Ant(bus, make_executors(("SHELL",)), store, config, SystemClock())
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    answers = asyncio.create_task(owner.answer())
    try:
        await ant.start()
        say("ready")
        await owner.send(owner.dispatch(shell(script)))
        await ant.wait()
    except FormicaryError as exc:
        say(f"{type(exc).__name__}: {exc}")
    finally:
        answers.cancel()
        await ant.stop()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


configure("warning", "json")
asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
