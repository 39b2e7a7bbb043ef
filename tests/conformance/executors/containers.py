"""The specimen of DOCKER, for whichever engine its executor talks to."""

from executors.base import Executor
from executors.specs import ContainerSpec, DockerSpec
from executors.testing import Specimen
from tests.engines import IMAGE

#: Lines of 64 KiB each.
BIG_LINES = 64


def docker_specimen(executor: Executor) -> Specimen:
    """Returns what the suite must know of containers, which run busybox."""

    def script(*lines: str) -> DockerSpec:
        return DockerSpec(container=ContainerSpec(image=IMAGE), script=lines)

    return Specimen(
        executor=executor,
        success=script("true"),
        failure=script("exit 3"),
        talking=script("echo hello"),
        said=b"hello\n",
        lasting=script("sleep 60"),
        stubborn=script("trap '' TERM", "echo ready", "while :; do sleep 1; done"),
        refused=script("echo \0"),
        big=script(f"head -c {BIG_LINES * 65536} /dev/zero"),
        big_bytes=BIG_LINES * 65536,
        at_once=10,
    )
