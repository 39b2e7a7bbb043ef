"""A process with one ant on the memory broker, which runs the script given, until it is killed.

Arguments: home folder, script, the length of leases that can lapse or 0, and optionally the user that runs the script.
With a user, it is held to 100 processes too.
"""

import asyncio
import sys
from pathlib import Path

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.options import ExecutorOptions
from executors.registry import make_executors
from executors.specs import Limits
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.errors import FormicaryError
from formicary.ids import AntId
from formicary.log import configure
from formicary.testing.owner import ScriptedOwner, shell


async def main(home: Path, script: str, lease_s: float, user: str | None) -> None:
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
        is_home_passable=user is not None,
    )
    options = ExecutorOptions(shell_user=user, shell_limits=Limits(processes=100) if user else Limits())
    ant = Ant(bus, make_executors(("SHELL",), options), store, config, SystemClock())
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
asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None))
