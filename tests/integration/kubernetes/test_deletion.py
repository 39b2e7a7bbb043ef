"""A pod that somebody deletes, in every phase of its life: a clear end each time, and nothing hangs."""

import asyncio

import pytest
import pytest_asyncio

from executors.base import Outcome, Reason, Run
from executors.errors import CollectFailedError, EvictedError
from executors.kubernetes.executor import KubernetesExecutor
from executors.specs import ContainerSpec, EmptyDirSpec, KubernetesSpec, ReadySpec, ServiceSpec, VolumeSpec
from tests.integration.kubernetes.conftest import IMAGE, Begin, ClusterUnderTest, Listener, MakeExecutor, let_go, script

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_S = 60.0
UNREADY = ServiceSpec(name="db", image=IMAGE, command=("sleep", "60"), ready=ReadySpec(port=5, timeout_s=LIMIT_S))
#: What a pod is doing when it is deleted: its spec, and what it says, or what kubectl waits for, until it does that.
BEFORE_ITS_END: dict[str, tuple[KubernetesSpec, str]] = {
    "waits for a node": (
        script("true", node_selector={"disk": "golden"}, schedule_timeout_s=LIMIT_S),
        "jsonpath={.status.conditions[?(@.type=='PodScheduled')].status}=False",
    ),
    "pulls its image": (
        script("true", container={"image": "127.0.0.1:1/none:1"}),
        "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff",
    ),
    "waits for what it mounts": (
        script("true", container={"volumes": (VolumeSpec(mount_path="/s", secret="absent"),)}),
        "condition=PodScheduled",
    ),
    "starts a service": (
        script("true", services=(UNREADY,)),
        "jsonpath={.status.initContainerStatuses[0].state.running.startedAt}",
    ),
    "runs a script": (script("echo ready", "sleep 60"), "ready"),
    "runs a script that ignores TERM": (script("echo ready", "trap '' TERM", "while :; do sleep 1; done"), "ready"),
    "runs the image's own command": (
        KubernetesSpec(container=ContainerSpec(image=IMAGE, command=("sh", "-c", "echo ready; exec sleep 60"))),
        "ready",
    ),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def patient(make_executor: MakeExecutor) -> KubernetesExecutor:
    """An executor that puts up with what keeps a pod from starting."""
    return await make_executor(image_timeout_s=LIMIT_S)


@pytest_asyncio.fixture(loop_scope="module", scope="module", autouse=True)
async def squeezed(begin_early: Begin) -> Run:
    """A task that takes more of a volume than it may have; nodes look at that every ten seconds."""
    small = VolumeSpec(mount_path="/small", empty_dir=EmptyDirSpec(size_limit="1Ki"))
    lines = ("head -c 100000 /dev/zero > /small/file", "sleep 100")
    return await begin_early(script(*lines, container={"volumes": (small,)}))


async def test_a_pod_deleted_before_its_script_has_ended_is_evicted(
    cluster: ClusterUnderTest, patient: KubernetesExecutor, begin: Begin
) -> None:
    sinks = {phase: Listener() for phase in BEFORE_ITS_END}
    runs = {phase: await begin(spec, sinks[phase], by=patient) for phase, (spec, _) in BEFORE_ITS_END.items()}

    async def delete_once_there(phase: str) -> None:
        awaited, name = BEFORE_ITS_END[phase][1], runs[phase].handle.name
        if awaited == "ready":
            await sinks[phase].heard(b"ready")
        else:
            await cluster.exists(runs[phase])
            await cluster.kubectl("wait", f"--for={awaited}", f"pod/{name}", "--timeout=60s")
        is_forced = phase == "runs a script"  # its record goes at once, its containers later
        grace_s = 0 if is_forced else 2
        await cluster.kubectl(
            "delete", "pod", name, "--wait=false", f"--grace-period={grace_s}", f"--force={str(is_forced).lower()}"
        )

    await asyncio.gather(*map(delete_once_there, runs))
    async with asyncio.timeout(40):
        ends = await asyncio.gather(*(patient.wait(run) for run in runs.values()), return_exceptions=True)
    for run in runs.values():
        let_go(patient, run)

    for phase, end in zip(runs, ends, strict=True):
        assert type(end) is EvictedError, (phase, end)
        assert "deleted the pod" in str(end), phase


async def test_a_pod_deleted_after_its_script_has_ended_keeps_the_end_and_says_what_is_lost(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    """Deleted: in its ``after_script``, while it waits to be collected, while it is, and once it was."""
    sink = Listener()
    in_after = await begin(script("true", after_script=("echo after", "sleep 60")), sink)
    others = [await begin(script("echo a > kept; truncate -s 4G large")) for _ in range(3)]
    waiting, collected, done = others
    outcomes: list[Outcome] = list(await asyncio.gather(*(executor.wait(run) for run in others)))
    await executor.collect(done, ["kept"], with_results=True)
    collecting = asyncio.create_task(executor.collect(collected, ["large"], with_results=True))
    await sink.heard(b"after")
    await asyncio.wait({collecting}, timeout=0.2)

    names = [run.handle.name for run in (in_after, *others)]
    await cluster.kubectl("delete", "pod", *names, "--grace-period=2")

    async with asyncio.timeout(40):
        outcomes.append(await executor.wait(in_after))
        with pytest.raises(CollectFailedError, match="taken away while") as cut_off:
            await collecting
        with pytest.raises(CollectFailedError, match="gone") as too_late:
            await executor.collect(waiting, ["kept"], with_results=True)
        await asyncio.gather(*(executor.cleanup(run) for run in (in_after, *others)))
    assert [(outcome.reason, outcome.is_success) for outcome in outcomes] == [(Reason.EXITED, True)] * 4
    assert cut_off.value.code == too_late.value.code == "ERR_ARTIFACT"
    assert (done.attempt.folder.path() / "kept").read_text() == "a\n"


async def test_a_node_that_ends_a_pod_before_it_says_why_is_waited_for(
    executor: KubernetesExecutor, squeezed: Run
) -> None:
    """A node that is short of something ends the containers first and reports the pod's state afterwards."""
    with pytest.raises(EvictedError, match="Evicted"):
        await executor.wait(squeezed)
    let_go(executor, squeezed)
