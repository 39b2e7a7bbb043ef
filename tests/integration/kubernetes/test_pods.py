"""What of a spec becomes true of its pod: volumes that are really mounted, services, places, identities."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from executors.errors import ExecutorError, ServiceError
from executors.kubernetes.executor import KubernetesExecutor
from executors.specs import (
    EmptyDirSpec,
    EnvironmentSourceSpec,
    ProjectedSpec,
    ReadySpec,
    SecuritySpec,
    ServiceSpec,
    TokenSpec,
    TolerationSpec,
    VolumeSpec,
)
from executors.testing import CollectingSink
from tests.integration.kubernetes.conftest import (
    IMAGE,
    NAMESPACE,
    Begin,
    ClusterUnderTest,
    MakeExecutor,
    encoded,
    finish,
    let_go,
    script,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERING = 'sleep 1; while :; do echo "hello from $WHO" | nc -l -p 5000; done'


@pytest_asyncio.fixture(loop_scope="module")
async def things(cluster: ClusterUnderTest, tmp_path: Path) -> AsyncIterator[Path]:
    """A config map, a secret, a volume claim and a folder of the node, each holding something."""
    folder = tmp_path / "node"
    for name in ("host", "claim"):
        (folder / name).mkdir(parents=True)
        (folder / name / "from").write_text(f"{name}\n")
    volume = {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    claim = {"resources": {"requests": {"storage": "1Mi"}}, "accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    manifests: list[dict[str, Any]] = [
        _thing("ConfigMap", data={"greeting": "from a map", "other": "x"}),
        _thing("Secret", data={"password": encoded("from a secret"), "user": encoded("bob")}),
        _thing("PersistentVolume", spec={**volume, "hostPath": {"path": str(folder / "claim")}}),
        _thing("PersistentVolumeClaim", spec={**claim, "volumeName": "things"}),
    ]
    await cluster.apply(*manifests)
    yield folder
    for manifest in reversed(manifests):
        await cluster.kubectl("delete", "--wait=false", manifest["kind"], "things")


def _thing(kind: str, **keys: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "things"}, **keys}


async def test_every_kind_of_volume_is_really_mounted(things: Path, make_executor: MakeExecutor, begin: Begin) -> None:
    projected = (
        ProjectedSpec(config_map="things", items={"greeting": "map/greeting"}),
        ProjectedSpec(secret="things", items={"user": "secret/user"}),
        ProjectedSpec(service_account_token=TokenSpec(path="token", audience="vault", expires_after_s=600)),
    )
    volumes = (
        VolumeSpec(mount_path="/v/host", host_path=str(things / "host"), read_only=True),
        VolumeSpec(mount_path="/v/claim", pvc="things"),
        VolumeSpec(mount_path="/v/map", config_map="things", items={"greeting": "hello.txt"}),
        VolumeSpec(mount_path="/v/one-key", config_map="things", sub_path="other"),
        VolumeSpec(mount_path="/v/secret", secret="things"),
        VolumeSpec(mount_path="/v/all", projected=projected),
        VolumeSpec(mount_path="/v/memory", empty_dir=EmptyDirSpec(medium="Memory", size_limit="1Mi")),
        VolumeSpec(mount_path="/v/empty", empty_dir=EmptyDirSpec()),
    )
    lines = [
        "cat /v/host/from /v/claim/from; ls /v/map; cat /v/map/hello.txt; echo; cat /v/one-key; echo",
        "cat /v/secret/password; echo; cat /v/all/map/greeting /v/all/secret/user; echo; cut -c1-3 /v/all/token; echo",
        "echo written > /v/claim/back; touch /v/empty/x; grep -c ' /v/memory tmpfs' /proc/mounts",
        "touch /v/host/x 2>/dev/null || echo read-only",
    ]
    sink = CollectingSink()
    executor = await make_executor(allow_privileged=True)

    run = await begin(script(*lines, container={"volumes": volumes}), sink, by=executor)
    assert (await finish(executor, run)).is_success

    said = [line for line in sink.text().decode().splitlines() if line]
    assert said == [
        *("host", "claim", "hello.txt", "from a map", "x", "from a secret", "from a mapbob", "eyJ", "1", "read-only")
    ]
    assert (things / "claim" / "back").read_text() == "written\n"


async def test_services_are_ready_before_the_task_and_reached_by_name(
    executor: KubernetesExecutor, begin: Begin
) -> None:
    services = (
        ServiceSpec(
            name="store",
            image=IMAGE,
            command=("sh", "-c", ANSWERING),
            environment={"WHO": "$(HOSTNAME) store"},
            ports=(5000,),
            ready=ReadySpec(port=5000, timeout_s=30),
        ),
        ServiceSpec(
            name="cache",
            image=IMAGE,
            command=("sh", "-c", "sleep 1; touch /tmp/up; sleep 600"),
            ready=ReadySpec(command=("test", "-e", "/tmp/up")),
        ),
    )
    sink = CollectingSink()

    lines = ["nc store 5000", "grep -c cache /etc/hosts"]

    assert (await finish(executor, await begin(script(*lines, services=services), sink))).is_success

    assert sink.text() == b"hello from $(HOSTNAME) store\n1\n"


async def test_a_service_that_ends_before_it_is_ready_fails_the_task_with_its_last_words(
    executor: KubernetesExecutor, begin: Begin
) -> None:
    service = ServiceSpec(name="db", image=IMAGE, command=("sh", "-c", "echo no disk; exit 4"), ready=ReadySpec(port=5))

    with pytest.raises(ServiceError, match=r"service db ended with exit code 4 before it was ready; .*no disk"):
        await finish(executor, await begin(script("true", services=(service,))))


async def test_a_service_that_never_gets_ready_fails_the_task(executor: KubernetesExecutor, begin: Begin) -> None:
    ready = ReadySpec(port=5000, timeout_s=1.5)
    service = ServiceSpec(name="db", image=IMAGE, command=("sh", "-c", "exec sleep 600"), ready=ready)

    with pytest.raises(ServiceError, match=r"service db was not ready after 1\.5 s"):
        await finish(executor, await begin(script("true", services=(service,))))


async def test_a_pod_is_where_and_what_its_spec_says(
    cluster: ClusterUnderTest, things: Path, executor: KubernetesExecutor, begin: Begin
) -> None:
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]
            }
        }
    }
    sources = (
        EnvironmentSourceSpec(config_map="things", prefix="MAP_"),
        EnvironmentSourceSpec(secret="things"),
        EnvironmentSourceSpec(secret="absent", optional=True),
    )
    spec = script(
        "echo $MAP_greeting, $password; ls /var/run/secrets/kubernetes.io/serviceaccount; id -u; id -G",
        "touch /new 2>/dev/null || echo read-only",
        env_from=sources,
        node_selector={"kubernetes.io/hostname": "node1"},
        tolerations=(TolerationSpec(key="only", value="jobs", effect="NoSchedule"),),
        affinity=affinity,
        pod_labels={"team": "blue"},
        pod_annotations={"note": "hello $(HOME)"},
        service_account="agent",
        security_context=SecuritySpec(
            run_as_user=1234, run_as_non_root=True, fs_group=77, read_only_root_filesystem=True
        ),
    )
    await cluster.kubectl("label", "node", "node1", "disk=ssd")
    await cluster.kubectl("taint", "node", "node1", "only=jobs:NoSchedule")
    sink = CollectingSink()
    try:
        run = await begin(spec, sink)
        outcome = await executor.wait(run)
        pod = await cluster.pod(run)
    finally:
        await cluster.kubectl("taint", "node", "node1", "only-")
        await cluster.kubectl("label", "node", "node1", "disk-")
    let_go(executor, run)

    assert outcome.is_success
    assert sink.text().decode().split("\n") == [
        *("from a map, from a secret", "ca.crt", "namespace", "token", "1234", "0 77", "read-only", "")
    ]
    assert pod["metadata"]["labels"]["team"] == "blue"
    assert pod["metadata"]["annotations"]["note"] == "hello $(HOME)"


async def test_rights_groups_network_and_priority_are_those_of_the_spec(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin
) -> None:
    urgent = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 7}
    await cluster.apply(urgent)
    spec = script(
        "grep CapEff /proc/self/status; id -g; id -G",
        container={"cpu_limit": "0.25"},
        host_network=True,
        priority_class="urgent",
        image_pull_secrets=("registry",),
        security_context=SecuritySpec(
            run_as_group=2, supplemental_groups=(4, 5), add_capabilities=("NET_ADMIN",), drop_capabilities=("CHOWN",)
        ),
    )
    sink = CollectingSink()
    executor = await make_executor(allow_privileged=True)

    run = await begin(spec, sink, by=executor)
    outcome = await executor.wait(run)
    pod = await cluster.pod(run)
    let_go(executor, run)
    await cluster.kubectl("delete", "priorityclass", "urgent")

    assert outcome.is_success
    _, capabilities, group, *groups = sink.text().decode().split()
    chown, net_raw, net_admin = (int(capabilities, 16) >> number & 1 for number in (0, 13, 12))
    assert (chown, net_raw, net_admin) == (0, 0, 1)
    assert (group, {"4", "5"} <= set(groups)) == ("2", True)
    assert pod["status"]["podIP"] == pod["status"]["hostIP"]
    assert (pod["spec"]["priority"], pod["spec"]["imagePullSecrets"]) == (7, [{"name": "registry"}])
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "250m"}


async def test_a_namespace_where_nobody_may_be_root_takes_a_task_with_its_services(
    cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin
) -> None:
    standard = "pod-security.kubernetes.io/enforce"
    security = SecuritySpec(run_as_user=1234, run_as_non_root=True, drop_capabilities=("ALL",))
    service = ServiceSpec(name="db", image=IMAGE, user="999", command=("sh", "-c", "id -u > /tmp/up; exec sleep 600"))
    sink = CollectingSink()
    await cluster.kubectl("label", "namespace", NAMESPACE, f"{standard}=restricted")
    try:
        with pytest.raises(ExecutorError, match="violates PodSecurity"):
            await finish(executor, await begin(script("true", services=(service,))))
        spec = script("id -u", services=(service,), security_context=security)
        assert (await finish(executor, await begin(spec, sink, number=2))).is_success
    finally:
        await cluster.kubectl("label", "namespace", NAMESPACE, f"{standard}-")

    assert sink.text() == b"1234\n"


async def test_without_an_account_a_pod_gets_no_token(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()

    await finish(executor, await begin(script("ls /var/run/secrets 2>/dev/null || echo none"), sink))

    assert sink.text() == b"none\n"


async def test_resources_are_those_of_the_spec_within_the_ants_bounds(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin
) -> None:
    executor = await make_executor(cpu_min="50m", cpu_max="1.5", memory_min="16Mi", memory_max="256MB")
    run = await begin(script("true", container={"memory_limit": "64Mi", "cpu_request": "0.02"}), by=executor)
    await executor.wait(run)

    pod = await cluster.pod(run)

    let_go(executor, run)
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "50m", "memory": "16777216"},
        "limits": {"cpu": "1500m", "memory": "67108864"},
    }


async def test_a_pod_says_whose_it_is(cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin) -> None:
    run = await begin(script("true"), task_type="Build it: now!", number=3)
    await executor.wait(run)

    pod = await cluster.pod(run)

    let_go(executor, run)
    labels = pod["metadata"]["labels"]
    assert pod["metadata"]["name"].startswith("formicary-build-it-now-")
    assert {key: value for key, value in labels.items() if key != "formicary/session"} == {
        "app.kubernetes.io/managed-by": "formicary",
        "formicary/owner": "tests",
        "formicary/job-id": "job-1",
        "formicary/task-type": "Build_it__now",
        "formicary/attempt": "3",
    }
    assert json.dumps(pod["spec"]).count("FORMICARY_ANT") == 0
