"""A process with one ant on the memory broker, which runs a script in a container, with a service, until it is killed.

Arguments: home folder, the engine's address, script, the length of leases that can lapse, or 0, and how many containers
run the script; several have no service. It says ``ready``, and ``over`` when the ant has said that a life of it is.
"""

import asyncio
import sys
from pathlib import Path

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.options import ExecutorOptions
from executors.registry import make_executors
from executors.specs import ContainerSpec, DockerSpec, ReadySpec, ServiceSpec
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.ants import AntLeft
from formicary.ids import AntId
from formicary.log import configure
from formicary.testing.owner import ScriptedOwner, order

IMAGE = "busybox:local"
SERVICE = ServiceSpec(name="beside", image=IMAGE, command=("sleep", "300"), ready=ReadySpec(command=("true",)))


async def main(home: Path, engine_url: str, script: str, lease_s: float, count: int) -> None:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "contained", SystemClock())
    store = LocalStore(home / "artifacts")
    await store.open()
    config = AntConfig(
        id=AntId("ant-1"),
        home=home,
        lease_s=lease_s or 60.0,
        survives_process=lease_s > 0,
        broker_url="memory://",
        engine_url=engine_url,
        slots=count,
    )
    ant = Ant(bus, make_executors(("DOCKER",), ExecutorOptions(docker_host=engine_url)), store, config, SystemClock())
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    beside = [asyncio.create_task(owner.answer()), asyncio.create_task(tell_end(bus))]
    try:
        await ant.start()
        say("ready")
        services = (SERVICE,) if count == 1 else ()
        spec = DockerSpec(container=ContainerSpec(image=IMAGE), script=(script,), services=services)
        for number in range(count):
            await owner.send(owner.dispatch(order("DOCKER", spec), number))
        await ant.wait()
    finally:
        for task in beside:
            task.cancel()
        await ant.stop()


async def tell_end(bus: Bus) -> None:
    subscription = await bus.subscribe([topics.ANTS], None, "witness")
    while True:
        for item in await subscription.receive(100, 60.0):
            if any(isinstance(event, AntLeft) for event in item.events):
                say("over")


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


configure("warning", "json")
asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5])))
