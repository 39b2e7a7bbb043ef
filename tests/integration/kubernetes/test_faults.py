"""What becomes of tasks when parts of the cluster, their ants or their pods end in the middle."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from executors.base import Outcome, Reason, Run, Stream
from executors.errors import EvictedError, ExecutorError, StartFailedError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.executor import KubernetesExecutor
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.watch import PodWatch
from tests.integration.kubernetes.conftest import (
    Begin,
    ClusterUnderTest,
    Listener,
    MakeExecutor,
    finish,
    let_go,
    script,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTING = ("n=0", "while [ $n -lt 40 ]; do echo line $n; n=$((n + 1)); sleep 0.1; done", "exit 3")
#: What every script says first.
HEARD = b"\n"
COUNTED = "".join(f"line {number}\n" for number in range(40)).encode()


@dataclass(frozen=True)
class Outage:
    """What became of some runs while the API server was dead for a while."""

    sinks: list[Listener]
    outcomes: list[Outcome]
    stopped: Run
    unmade: Run
    has_stop_waited: bool


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def outage(cluster: ClusterUnderTest, executor: KubernetesExecutor, begin_early: Begin) -> Outage:
    """Kills the API server while three tasks run; one that runs and one that has no pod yet are stopped meanwhile."""
    sinks = [Listener() for _ in range(4)]
    counting = [await begin_early(script(*COUNTING), sink) for sink in sinks[1:]]
    stopped = await begin_early(script("echo ready", "sleep 60"), sinks[0])
    await asyncio.gather(*(sink.heard(HEARD) for sink in sinks))

    await cluster.kill("apiserver")
    late, unmade = await begin_early(script("echo late")), await begin_early(script("sleep 60"))
    stopping = asyncio.gather(*(executor.stop(each, 0, Reason.CANCELLED) for each in (stopped, unmade)))
    has_stop_waited = await asyncio.wait({stopping}, timeout=0.5) == (set(), {stopping})
    await cluster.start("apiserver")
    await stopping

    outcomes = await asyncio.gather(*(finish(executor, run) for run in [*counting, late]))
    return Outage(sinks[1:], outcomes, stopped, unmade, has_stop_waited)


async def test_killing_the_api_server_in_the_middle_costs_no_line_and_no_exit_code(outage: Outage) -> None:
    assert [outcome.exit_code for outcome in outage.outcomes] == [3, 3, 3, 0]
    assert [sink.text() for sink in outage.sinks] == [COUNTED] * 3


async def test_stop_and_cleanup_outlast_a_dead_api_server(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, outage: Outage
) -> None:
    runs = outage.stopped, outage.unmade

    assert outage.has_stop_waited, "nobody can know that it ended"
    assert [(await executor.wait(run)).reason for run in runs] == [Reason.CANCELLED] * 2
    await asyncio.gather(*(executor.cleanup(run) for run in runs))
    assert await cluster.names() & {run.handle.name for run in runs} == set()


async def test_a_task_that_was_stopped_before_it_had_a_pod_never_gets_one(
    cluster: ClusterUnderTest, outage: Outage
) -> None:
    assert "Scheduled" in await cluster.events_of(outage.stopped)
    assert await cluster.events_of(outage.unmade) == ""


async def test_killing_the_kubelet_in_the_middle_costs_no_line_and_no_exit_code(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    sink = Listener()
    run = await begin(script(*COUNTING), sink)
    await sink.heard(HEARD)

    await cluster.kill("kubelet")
    waiting = asyncio.create_task(finish(executor, run))
    await asyncio.wait({waiting}, timeout=1)
    await cluster.start("kubelet")

    assert (await waiting).exit_code == 3
    assert sink.text() == COUNTED


async def test_an_expired_position_and_a_listener_that_stumbles_are_answered_by_a_list(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin, outage: Outage
) -> None:
    """An API server that was started anew knows no old positions."""
    run = await begin(script("sleep 60"))
    await cluster.exists(run)
    seen: asyncio.Queue[str] = asyncio.Queue()
    troubles: list[ExecutorError] = []
    connection = Cluster(kubeconfig=cluster.agent)
    await connection.open()

    defects = [KeyError("no such thing")]

    def stumble_once(pod: dict[str, Any]) -> None:
        if defects:
            raise defects.pop()

    watch = PodWatch(
        connection,
        "app.kubernetes.io/managed-by=formicary",
        on_pod=stumble_once,
        on_gone=lambda pod: None,
        on_listed=lambda names: seen.put_nowait(f"listed {len(names) > 0}"),
        on_trouble=troubles.append,
        version="1",
    )
    watching = asyncio.create_task(watch.run())
    async with asyncio.timeout(40):
        while await seen.get() != "listed True":
            pass
    watching.cancel()

    await connection.close()
    assert all("410" not in str(trouble) for trouble in troubles)
    assert [str(trouble) for trouble in troubles if "stumbled" in str(trouble)] != []
    await executor.stop(run, 0, Reason.CANCELLED)
    let_go(executor, run)


async def test_a_log_that_is_rotated_arrives_whole(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    """The cluster keeps 1 MiB of a file; this writes 4, over longer than it takes to notice."""
    lines = 400
    body = f"n=0; while [ $n -lt {lines} ]; do printf '%d ' $n; head -c 10000 /dev/zero | tr '\\0' x; echo; "
    sink = Listener()
    run = await begin(script(body + "n=$((n + 1)); sleep 0.01; done"), sink)

    await executor.wait(run)
    left = await cluster.kubectl("logs", run.handle.name)
    let_go(executor, run)

    assert len(left) < 3_000_000, "the log was not rotated"
    numbers = [int(line.split()[0]) for line in sink.text().splitlines()]
    assert numbers == list(range(lines))
    assert sink.sizes[Stream.STDOUT] == sum(len(str(number)) + 10002 for number in range(lines))


async def test_a_drained_node_evicts_with_its_reason(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    sink = Listener()
    run = await begin(script("echo ready", "sleep 60"), sink)
    await sink.heard(HEARD)
    name = run.handle.name
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "jobs"}}

    path = f"/api/v1/namespaces/jobs/pods/{name}/eviction"
    await cluster.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))

    with pytest.raises(EvictedError, match="EvictionByEvictionAPI"):
        await finish(executor, run)


async def test_a_stop_at_any_moment_of_the_start_leaves_nothing(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    async def stop_after(delay_s: float) -> str:
        run = await begin(script("sleep 60"))
        waiting = asyncio.create_task(executor.wait(run))
        await asyncio.wait({waiting}, timeout=delay_s)
        await executor.stop(run, 0, Reason.CANCELLED)
        await executor.cleanup(run)
        assert (await waiting).reason is Reason.CANCELLED
        return str(run.handle.name)

    names = await asyncio.gather(*(stop_after(tenths / 10) for tenths in range(12)))

    assert await cluster.names() & set(names) == set()


async def test_a_newer_attempt_removes_the_pod_of_an_older_one_before_it_starts(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin
) -> None:
    cut_off, successor = await make_executor(owner="a"), await make_executor(owner="b")
    first, second = Listener(), Listener()
    older = await begin(script("echo ready", "sleep 60"), first, by=cut_off, task_type="fenced", number=1)
    await first.heard(b"ready")

    newer = await begin(script("echo second", "sleep 60"), second, by=successor, task_type="fenced", number=2)
    await second.heard(b"second")
    there = [pod for pod in await cluster.pods() if pod["metadata"]["name"] == newer.handle.name]

    with pytest.raises(EvictedError):
        await cut_off.wait(older)
    assert [pod["metadata"]["labels"]["formicary/attempt"] for pod in there] == ["2"]
    assert b"removing the pod of attempt 1" in second.text(Stream.SYSTEM)
    with pytest.raises(StartFailedError, match="attempt 2 of this task has a pod already"):
        await finish(cut_off, await begin(script("true"), by=cut_off, task_type="fenced", number=1))
    await cut_off.cleanup(older)
    assert newer.handle.name in await cluster.names(), "the cut-off ant removes its own pods only"
    await successor.stop(newer, 0, Reason.CANCELLED)
    let_go(successor, newer)


async def test_what_a_dead_ant_left_is_removed_by_its_next_life_and_by_no_other(
    cluster: ClusterUnderTest, options: KubernetesOptions, make_executor: MakeExecutor, begin: Begin
) -> None:
    sinks = Listener(), Listener()
    dying = [await make_executor(owner=owner) for owner in ("mine", "others")]
    runs: list[Run] = [
        await begin(script("echo ready", "sleep 60"), sink, by=by) for by, sink in zip(dying, sinks, strict=True)
    ]
    await asyncio.gather(*(sink.heard(HEARD) for sink in sinks))
    for executor in dying:
        await executor.close()

    await make_executor(owner="mine")

    mine, others = (run.handle.name for run in runs)
    await cluster.kubectl("wait", "--for=delete", f"pod/{mine}", "--timeout=30s")
    assert others in await cluster.names()
    await make_executor(owner="others")


async def test_an_account_that_may_not_enough_is_told_what_is_missing(
    cluster: ClusterUnderTest, make_executor: MakeExecutor
) -> None:
    with pytest.raises(ExecutorError, match=r"create pods, .* get pods/exec in namespace default; .*Role"):
        await make_executor(namespace="default")


async def test_without_a_cluster_the_executor_says_how_to_name_one(
    make_executor: MakeExecutor, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(ExecutorError, match="set KUBECONFIG"):
        await make_executor(kubeconfig=str(tmp_path_factory.mktemp("none") / "absent"))
