"""The pod of a spec, held against the cluster's own schemas."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from executors.errors import SpecRefusedError
from executors.kubernetes.manifest import MAIN, Plan, pod_manifest
from executors.kubernetes.options import KubernetesOptions
from executors.specs import (
    ContainerSpec,
    EmptyDirSpec,
    EnvironmentSourceSpec,
    KubernetesSpec,
    ProjectedSpec,
    ReadySpec,
    SecuritySpec,
    ServiceSpec,
    TokenSpec,
    TolerationSpec,
    VolumeSpec,
)
from executors.testing import make_attempt

Json = Any  # a JSON value

VERSIONS = ("1.29", "1.33", "1.36")
ALLOWING = KubernetesOptions(allow_privileged=True, cpu_min="10m", cpu_max="4", memory_min="8Mi", memory_max="8Gi")
TERMS = [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]
EVERYTHING = KubernetesSpec(
    container=ContainerSpec(
        image="registry.example.org/team/image:1.2",
        image_pull_policy="Always",
        entrypoint=("tini", "--"),
        user="1000:1000",
        working_dir="/app",
        cpu_limit="2",
        cpu_request="0.5",
        memory_limit="1.5GB",
        memory_request="512Mi",
        volumes=(
            VolumeSpec(mount_path="/host", host_path="/srv", read_only=True),
            VolumeSpec(mount_path="/claim", pvc="claim", sub_path="a/b"),
            VolumeSpec(mount_path="/map", config_map="map", items={"key": "path"}),
            VolumeSpec(mount_path="/secret", secret="secret"),
            VolumeSpec(
                mount_path="/all",
                projected=(
                    ProjectedSpec(config_map="map"),
                    ProjectedSpec(secret="secret", items={"a": "b"}),
                    ProjectedSpec(service_account_token=TokenSpec(path="token", audience="vault")),
                ),
            ),
            VolumeSpec(mount_path="/memory", empty_dir=EmptyDirSpec(medium="Memory", size_limit="64M")),
        ),
        privileged=True,
    ),
    services=(
        ServiceSpec(
            name="db",
            image="postgres:17",
            entrypoint=("docker-entrypoint.sh",),
            command=("postgres",),
            ports=(5432,),
            environment={"POSTGRES_PASSWORD": "$(not) $$replaced"},
            user="999",
            memory_limit="256Mi",
            volumes=(VolumeSpec(mount_path="/map", config_map="map", items={"key": "path"}),),
            ready=ReadySpec(port=5432, timeout_s=90),
        ),
        ServiceSpec(name="cache", image="valkey:9", ready=ReadySpec(command=("valkey-cli", "ping"))),
    ),
    script=("make",),
    after_script=("make clean",),
    environment={"REGION": "eu"},
    env_from=(EnvironmentSourceSpec(config_map="map", prefix="MAP_"), EnvironmentSourceSpec(secret="s", optional=True)),
    node_selector={"disk": "ssd"},
    tolerations=(
        TolerationSpec(key="gpu", value="yes", effect="NoExecute", for_s=60.0),
        TolerationSpec(key="spot"),
        TolerationSpec(),
    ),
    affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": TERMS}}},
    pod_labels={"team": "blue"},
    pod_annotations={"note": "any text"},
    service_account="builder",
    image_pull_secrets=("registry",),
    host_network=True,
    priority_class="low",
    security_context=SecuritySpec(
        run_as_user=1,
        run_as_group=2,
        run_as_non_root=True,
        fs_group=3,
        supplemental_groups=(4, 5),
        read_only_root_filesystem=True,
        allow_privilege_escalation=True,
        add_capabilities=("NET_ADMIN",),
        drop_capabilities=("CHOWN",),
    ),
)
PLAIN = KubernetesSpec(container=ContainerSpec(image="busybox:1"), script=("true",))


def pod_of(spec: KubernetesSpec, options: KubernetesOptions | None = None, **keys: Any) -> dict[str, Json]:
    attempt = make_attempt(spec, Path("/nowhere/work"), task_type=keys.pop("task_type", "build"))
    plan = Plan(attempt=attempt, spec=spec, session="s", token="t", mark="m", **keys)
    return pod_manifest(plan, options or KubernetesOptions())


def main_of(pod: dict[str, Json]) -> dict[str, Json]:
    main: dict[str, Json] = pod["spec"]["containers"][0]
    return main


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("spec", "options", "keys"),
    [
        (PLAIN, KubernetesOptions(), {}),
        (EVERYTHING, ALLOWING, {"has_inputs": True}),
        (KubernetesSpec(container=ContainerSpec(image="busybox:1")), KubernetesOptions(owner="an ant"), {}),
        (PLAIN, ALLOWING, {"owner_reference": {"apiVersion": "v1", "kind": "Pod", "name": "ant", "uid": "u"}}),
    ],
    ids=["plain", "everything", "no script", "owned"],
)
def test_the_clusters_own_schema_takes_the_pod(
    version: str, spec: KubernetesSpec, options: KubernetesOptions, keys: dict[str, Json]
) -> None:
    kubernetes_validate.validate(pod_of(spec, options, **keys), version, strict=True)


def test_the_schemas_can_refuse() -> None:
    pod = pod_of(PLAIN)
    main_of(pod)["imagePullPolcy"] = "Always"

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.36", strict=True)


def test_every_volume_is_there_and_mounted_once_however_many_containers_share_it() -> None:
    pod = pod_of(EVERYTHING, ALLOWING)

    names = [volume["name"] for volume in pod["spec"]["volumes"]]
    main = [mount["name"] for mount in main_of(pod)["volumeMounts"]]
    service = [mount["name"] for mount in pod["spec"]["initContainers"][0]["volumeMounts"]]
    assert sorted(main) == sorted(names)
    assert set(service) <= set(names)
    assert len(names) == len(set(names)) == 7


def test_services_are_native_sidecars() -> None:
    assert [each["restartPolicy"] for each in pod_of(EVERYTHING, ALLOWING)["spec"]["initContainers"]] == ["Always"] * 2
    assert pod_of(EVERYTHING, ALLOWING)["spec"]["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["db", "cache"]}]


def test_all_attempts_of_a_task_have_one_name_and_other_tasks_others() -> None:
    def name(job_id: str, task_type: str, number: int) -> str:
        attempt = make_attempt(PLAIN, Path("/nowhere"), job_id=job_id, task_type=task_type, number=number)
        plan = Plan(attempt=attempt, spec=PLAIN, session="s", token="t", mark="m")
        return str(pod_manifest(plan, KubernetesOptions())["metadata"]["name"])

    assert name("job", "a", 1) == name("job", "a", 2)
    assert len({name("job", "a", 1), name("job", "A", 1), name("job", "b", 1), name("other", "a", 1)}) == 4


@pytest.mark.parametrize("task_type", ["a" * 100, "Ünïcode: x", "-.-", "9.lives"])
def test_any_task_has_a_name_and_labels_that_a_cluster_takes(task_type: str) -> None:
    pod = pod_of(PLAIN, KubernetesOptions(owner="_x " * 50), task_type=task_type)

    name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
    assert len(name) <= 63
    assert name.replace("-", "").isalnum()
    assert name == name.lower()
    assert all(
        len(value) <= 63 and (not value or (value[0].isalnum() and value[-1].isalnum())) for value in labels.values()
    )


def test_dollars_are_the_scripts_own() -> None:
    container = ContainerSpec(image="busybox:1", entrypoint=("env", "$A"))
    pod = pod_of(KubernetesSpec(container=container, script=("echo $(date) $$",), environment={"X": "$(HOME)"}))

    assert main_of(pod)["args"][-1] == "echo $$(date) $$$$\n"
    assert {"name": "X", "value": "$$(HOME)"} in main_of(pod)["env"]
    assert main_of(pod)["command"] == ["env", "$$A", "sh", "-c"]


def test_nothing_of_the_ants_own_is_in_the_pod() -> None:
    attempt = make_attempt(PLAIN, Path("/nowhere"), environment={"FORMICARY_ANT": "x", "FORMICARY_OUTPUT": "/here/o"})
    plan = Plan(attempt=attempt, spec=PLAIN, session="s", token="t", mark="m")

    env = {each["name"]: each["value"] for each in main_of(pod_manifest(plan, KubernetesOptions()))["env"]}

    assert "FORMICARY_ANT" not in env
    assert env["FORMICARY_OUTPUT"] == "/formicary/output"


def test_without_a_wish_for_more_a_container_gets_no_new_rights() -> None:
    assert main_of(pod_of(PLAIN))["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["NET_RAW"]},
    }
    assert pod_of(PLAIN)["spec"]["automountServiceAccountToken"] is False
    assert pod_of(PLAIN)["spec"]["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def changed(**keys: Any) -> KubernetesSpec:
    container = ContainerSpec(**{"image": "busybox:1", **keys.pop("container", {})})
    return KubernetesSpec(container=container, **{"script": ("true",), **keys})


HOST_VOLUME = (VolumeSpec(mount_path="/h", host_path="/"),)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (changed(container={"privileged": True}), "container.privileged: this ant does not allow it"),
        (changed(container={"volumes": HOST_VOLUME}), "volumes.host_path: this ant"),
        (changed(services=(ServiceSpec(name="a", image="b", volumes=HOST_VOLUME),)), "volumes.host_path: this ant"),
        (changed(host_network=True), "host_network: this ant"),
        (changed(security_context=SecuritySpec(add_capabilities=("SYS_ADMIN",))), "add_capabilities: this ant"),
        (changed(container={"user": "bob"}), 'such as "1000"'),
        (changed(services=(ServiceSpec(name=MAIN, image="b"),)), '"main" is the name'),
        (changed(pod_labels={"formicary/owner": "me"}), "is set by formicary"),
        (changed(pod_annotations={"app.kubernetes.io/managed-by": "me"}), "is set by formicary"),
        (changed(environment={"FORMICARY_JOB_ID": "x"}), "FORMICARY_JOB_ID is set by formicary"),
        (changed(script=("echo \0",)), "NUL"),
        (changed(environment={"A": "\ud800"}), "surrogate"),
        (changed(script=("x" * 1_500_000,)), "make the script shorter"),
        (changed(container={"memory_limit": "a lot"}), "no size"),
        (changed(script=(), after_script=("true",)), "need a script"),
    ],
)
def test_what_can_never_run_is_refused_with_what_would_be_right(spec: KubernetesSpec, words: str) -> None:
    with pytest.raises(SpecRefusedError, match=words):
        pod_of(spec)


@pytest.mark.parametrize(
    ("container", "requests", "limits"),
    [
        ({}, {"cpu": "100m", "memory": "1048576"}, {"cpu": "2000m", "memory": "1073741824"}),
        ({"cpu_limit": "50m"}, {"cpu": "100m", "memory": "1048576"}, {"cpu": "100m", "memory": "1073741824"}),
        (
            {"cpu_request": "1", "memory_request": "2M", "memory_limit": "3M"},
            {"cpu": "1000m", "memory": "2000000"},
            {"cpu": "2000m", "memory": "3000000"},
        ),
    ],
)
def test_resources_stay_within_the_ants_bounds(
    container: dict[str, str], requests: dict[str, str], limits: dict[str, str]
) -> None:
    options = KubernetesOptions(cpu_min="100m", cpu_max="2", memory_min="1Mi", memory_max="1Gi")

    assert main_of(pod_of(changed(container=container), options))["resources"] == {
        "requests": requests,
        "limits": limits,
    }


def test_the_ants_most_is_a_limit_and_reserves_nothing() -> None:
    """A cluster takes a limit for the request too, where no request is written."""
    most = KubernetesOptions(cpu_max="64", memory_max="512Gi")

    unsaid = main_of(pod_of(changed(container={}), most))["resources"]
    said = main_of(pod_of(changed(container={"cpu_limit": "2", "memory_request": "1Mi"}), most))["resources"]

    assert unsaid == {
        "requests": {"cpu": "0m", "memory": "0"},
        "limits": {"cpu": "64000m", "memory": "549755813888"},
    }
    assert said == {"requests": {"memory": "1048576"}, "limits": {"cpu": "2000m", "memory": "549755813888"}}


@pytest.mark.parametrize("key", ["cpu_limit", "cpu_request", "memory_limit", "memory_request"])
def test_more_than_the_ants_most_is_refused(key: str) -> None:
    value = "3" if key.startswith("cpu") else "2Gi"

    with pytest.raises(SpecRefusedError, match=f"{key}: this ant gives a container at most"):
        pod_of(changed(container={key: value}), KubernetesOptions(cpu_max="2", memory_max="1Gi"))
