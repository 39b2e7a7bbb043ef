"""One real cluster, which these tests have for themselves, and executors with the least rights that do."""

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from executors.base import Outcome, Run, Stream
from executors.kubernetes.changes import Changes
from executors.kubernetes.executor import KubernetesExecutor
from executors.kubernetes.options import KubernetesOptions
from executors.options import ExecutorOptions
from executors.specs import ContainerSpec, KubernetesSpec, Spec
from executors.testing import CollectingSink, RecordingGuard, Specimen, make_attempt

Json = Any  # a JSON value

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "servers"
PARTS = ROOT / "scripts" / "servers.d" / "kubernetes"
#: There is one cluster a machine: who else wants one waits.
LOCK = Path("/tmp/formicary-kubernetes.lock")
#: How long another run of these tests, or the build of the cluster, is waited for.
PATIENCE_S = 1500
IMAGE = "localhost/busybox:1"
NAMESPACE = "jobs"
BIG_LINES = 64
#: What is undone when the cluster is not needed any more.
RUNNING = contextlib.ExitStack()
#: Runs that are being cleaned up.
GOING: set[asyncio.Task[None]] = set()


class ClusterUnderTest:
    """The cluster: its kubeconfigs, ``kubectl`` with all rights, and its parts, which can be killed."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.admin = variables["FORMICARY_TEST_KUBERNETES_CONFIG"]
        self.agent = variables["FORMICARY_TEST_KUBERNETES_AGENT_CONFIG"]

    async def kubectl(self, *words: str, given: str = "", is_checked: bool = True) -> str:
        """Returns what kubectl says, in the namespace of the tasks."""
        binary = Path.home() / ".cache" / "formicary-servers" / "kubernetes" / "bin" / "kubectl"
        cache = os.environ.get("FORMICARY_SERVERS_CACHE")
        program = Path(cache, "kubernetes", "bin", "kubectl") if cache else binary
        process = await asyncio.create_subprocess_exec(
            *(str(program), "--kubeconfig", self.admin, "-n", NAMESPACE, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate(given.encode())
        assert process.returncode == 0 or not is_checked, said.decode()
        return said.decode()

    async def pods(self) -> list[dict[str, Json]]:
        """Returns the pods of tasks."""
        answer = json.loads(await self.kubectl("get", "pods", "-o", "json"))
        items: list[dict[str, Json]] = answer["items"]
        return items

    async def names(self) -> set[str]:
        """Returns the names of the pods of tasks."""
        return {pod["metadata"]["name"] for pod in await self.pods()}

    async def exists(self, run: Run) -> None:
        """Returns when the cluster has the pod of a run."""
        await self.kubectl("wait", "--for=create", f"pod/{run.handle.name}", "--timeout=30s")

    async def pod(self, run: Run) -> dict[str, Json]:
        """Returns the pod of a run."""
        pod: dict[str, Json] = json.loads(await self.kubectl("get", "pod", run.handle.name, "-o", "json"))
        return pod

    async def events_of(self, run: Run) -> str:
        """Returns why things happened to the pod of a run, as the cluster's own parts reported them."""
        selected = f"involvedObject.name={run.handle.name}"
        return await self.kubectl("get", "events", "--field-selector", selected, "-o", "jsonpath={.items[*].reason}")

    async def apply(self, *manifests: dict[str, Json]) -> None:
        await self.kubectl(
            "apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )

    async def kill(self, part: str) -> None:
        """Ends a part as a crash would: ``apiserver``, ``kubelet``, …"""
        await asyncio.to_thread(self._component, "kill", part)

    async def start(self, part: str) -> None:
        """Starts a part again."""
        await asyncio.to_thread(self._component, "start", part)

    def _component(self, action: str, part: str) -> None:
        subprocess.run([str(PARTS / "component.sh"), action, part], check=True, timeout=30)


def servers(*words: str) -> str:
    """Returns what the script says that starts and stops servers."""
    command = [sys.executable, str(SCRIPT), words[0], "kubernetes", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test waits for the cluster, which may have to be built: its own time begins afterwards."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Ends the cluster after the last of these tests: those that follow want the machine for themselves."""
    try:
        yield
    finally:
        if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
            RUNNING.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[ClusterUnderTest]:
    """The machine's cluster; one that a killed run of these tests left is ended first."""
    lock = RUNNING.enter_context(LOCK.open("w"))
    give_up_at = time.monotonic() + PATIENCE_S
    while not _is_locked(lock.fileno()):
        assert time.monotonic() < give_up_at, f"another run of these tests holds {LOCK}"
        time.sleep(0.2)
    servers("stop")
    RUNNING.callback(servers, "stop", "--purge")
    lines = [line.removeprefix("export ").partition("=") for line in servers("start").splitlines()]
    yield ClusterUnderTest({name: shlex.split(value)[0] for name, _, value in lines})
    RUNNING.close()


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module")
def options(cluster: ClusterUnderTest) -> KubernetesOptions:
    return KubernetesOptions(kubeconfig=cluster.agent, image_timeout_s=3, schedule_timeout_s=3)


MakeExecutor = Callable[..., Awaitable[KubernetesExecutor]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make_executor(options: KubernetesOptions) -> AsyncIterator[MakeExecutor]:
    """Makes executors, each a process of its own as far as the cluster can tell."""
    made: list[KubernetesExecutor] = []

    async def make(*, after_limit_s: float = 60.0, **changes: Any) -> KubernetesExecutor:
        own = replace(options, **{"owner": f"tests-{len(made)}", **changes})
        executor = KubernetesExecutor(ExecutorOptions(kubernetes=own, shell_after_script_limit_s=after_limit_s))
        made.append(executor)
        await executor.check()
        return executor

    yield make
    await asyncio.gather(*GOING)
    for executor in made:
        await executor.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(make_executor: MakeExecutor) -> KubernetesExecutor:
    return await make_executor(owner="tests")


@pytest.fixture
def specimen(executor: KubernetesExecutor) -> Specimen:
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
        at_once=30,
    )


def script(*lines: str, **keys: Any) -> KubernetesSpec:
    """Returns a spec that runs lines in busybox; ``container`` changes its container."""
    container = ContainerSpec(**{"image": IMAGE, **keys.pop("container", {})})
    return KubernetesSpec(container=container, script=lines, **keys)


class Listener(CollectingSink):
    """A sink that can be asked to wait for words of the task."""

    def __init__(self) -> None:
        super().__init__()
        self._changes = Changes()

    async def write(self, stream: Stream, data: bytes) -> None:
        await super().write(stream, data)
        self._changes.announce()

    async def heard(self, words: bytes) -> None:
        """Returns when the task has said it."""
        await self._changes.until(lambda: words in self.text())


Begin = Callable[..., Awaitable[Run]]


@pytest.fixture
def begin(request: pytest.FixtureRequest, executor: KubernetesExecutor, tmp_path: Path) -> Begin:
    """Starts an attempt of a task of its own, unless told of which, with a sink of its own."""
    return beginner(executor, tmp_path, request.node.name[:40])


@pytest.fixture(scope="module")
def begin_early(executor: KubernetesExecutor, tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """As ``begin``, for what several tests of a module look at, or what takes its time while others run."""
    return beginner(executor, tmp_path_factory.mktemp("early"), "early")


def beginner(executor: KubernetesExecutor, folder: Path, name: str) -> Begin:
    """Returns what starts attempts by an executor, unless told by which."""
    count = 0

    async def start(
        spec: Spec,
        sink: CollectingSink | None = None,
        guard: RecordingGuard | None = None,
        *,
        by: KubernetesExecutor | None = None,
        task_type: str = "",
        number: int = 1,
        life: str = "",
        inputs: dict[str, bytes] | None = None,
    ) -> Run:
        nonlocal count
        count += 1
        attempt = make_attempt(
            spec,
            folder / str(count) / "work",
            task_type=task_type or f"{name}-{count}",
            number=number,
            environment={"FORMICARY_ANT": life} if life else None,
            guard=guard,
        )
        for path, data in (inputs or {}).items():
            target = attempt.folder.path() / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return await (by or executor).start(attempt, sink or CollectingSink())

    return start


async def finish(executor: KubernetesExecutor, run: Run) -> Outcome:
    """Returns how a run ended; its pod goes while the next test runs."""
    try:
        return await executor.wait(run)
    finally:
        let_go(executor, run)


def let_go(executor: KubernetesExecutor, run: Run) -> None:
    """Has a run cleaned up by the end of the module."""
    going = asyncio.create_task(executor.cleanup(run))
    GOING.add(going)
    going.add_done_callback(GOING.discard)


def encoded(text: str) -> str:
    """Returns the value of a secret's key."""
    return base64.b64encode(text.encode()).decode()
