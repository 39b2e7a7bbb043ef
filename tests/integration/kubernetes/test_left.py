"""Pods that nobody looks after any more, and what keeps two attempts of a task apart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from executors.errors import StartFailedError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.labels import pod_labels
from executors.kubernetes.reaper import Reaper
from executors.testing import RecordingGuard, make_attempt
from tests.integration.kubernetes.conftest import (
    IMAGE,
    NAMESPACE,
    Begin,
    ClusterUnderTest,
    Listener,
    MakeExecutor,
    let_go,
    script,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def connection(cluster: ClusterUnderTest) -> AsyncIterator[Cluster]:
    """A connection of its own, with the rights of an ant."""
    connection = Cluster(kubeconfig=cluster.agent)
    await connection.open()
    yield connection
    await connection.close()


async def test_pods_of_lives_that_were_counted_lost_are_removed_and_no_others(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin
) -> None:
    lives, sinks = ("ant-1@1+place", "ant-1@2+place"), (Listener(), Listener())
    dying, successor = await make_executor(), await make_executor()
    runs = [await begin(script("echo ready", "sleep 60"), sinks[no], by=dying, life=lives[no]) for no in (0, 1)]
    await asyncio.gather(*(sink.heard(b"ready") for sink in sinks))

    successor.lives_over(["someone@1", lives[0]])
    successor.lives_over([lives[0]])

    await cluster.kubectl("wait", "--for=delete", f"pod/{runs[0].handle.name}", "--timeout=30s")
    assert runs[1].handle.name in await cluster.names()
    for run in runs:
        let_go(dying, run)


def orphan(name: str, owner: str, life: str, deadline_s: int, tmp_path: Path) -> dict[str, Any]:
    """Returns the pod of an ant that is gone, which no node will ever take."""
    attempt = make_attempt(script("true"), tmp_path, environment={"FORMICARY_ANT": life})
    labels = pod_labels(attempt, owner, session="another")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "activeDeadlineSeconds": deadline_s,
            "nodeSelector": {"disk": "golden"},
            "containers": [{"name": "main", "image": IMAGE}],
        },
    }


async def test_a_reaper_finds_what_turns_up_later_and_what_outlived_a_deadline_that_no_node_keeps(
    cluster: ClusterUnderTest, connection: Cluster, tmp_path: Path
) -> None:
    reaper = Reaper(connection, "mine", "session", is_wanted=lambda pod: True, every_s=0.3, margin_s=0)
    await cluster.apply(orphan("left-of-mine", "mine", "ant@2", 600, tmp_path))
    assert await reaper.sweep() == ["left-of-mine"]
    reaper.start()
    reaper.note_lost(["ant@1"])

    await cluster.apply(
        orphan("left-of-the-lost", "other", "ant@1", 600, tmp_path),
        orphan("left-over-deadline", "other", "ant@2", 1, tmp_path),
        orphan("left-alone", "other", "ant@2", 600, tmp_path),
        orphan("left-to-a-namesake", "mine", "ant@2", 600, tmp_path),
    )
    gone = [f"pod/{name}" for name in ("left-of-mine", "left-of-the-lost", "left-over-deadline")]
    await cluster.kubectl("wait", "--for=delete", *gone, "--timeout=30s")

    await reaper.close()
    assert await cluster.names() >= {"left-alone", "left-to-a-namesake"}
    await cluster.kubectl("delete", "pod", "left-alone", "left-to-a-namesake")


async def test_without_the_wardens_leave_no_pod_is_made(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin
) -> None:
    executor = await make_executor()
    refusing, allowing = RecordingGuard(refuses=True), RecordingGuard()

    refused = await begin(script("true"), guard=refusing, by=executor)
    allowed = await begin(script("true"), guard=allowing, by=executor)

    with pytest.raises(StartFailedError, match="lease"):
        await executor.wait(refused)
    assert (await executor.wait(allowed)).is_success
    assert await cluster.events_of(refused) == ""
    assert (refusing.allowed_count, allowing.allowed_count) == (1, 1)
    await asyncio.gather(executor.cleanup(refused), executor.cleanup(allowed))


async def test_a_place_is_one_namespace_of_one_cluster(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, connection: Cluster, tmp_path: Path
) -> None:
    async def place_of(kubeconfig: str, namespace: str) -> str:
        other = Cluster(namespace, kubeconfig)
        await other.open()
        place = await other.place()
        await other.close()
        return place

    moved = tmp_path / "kubeconfig"
    config = await cluster.kubectl("config", "view", "--raw")
    moved.write_text(config.replace("10.250.0.2", "10.250.0.9"))

    here = (await make_executor()).place

    assert here == await connection.place() == await place_of(cluster.admin, NAMESPACE)
    others = {await place_of(cluster.agent, "other"), await place_of(str(moved), NAMESPACE)}
    assert len({here, *others}) == 3
    assert not set("@+").intersection(here)
