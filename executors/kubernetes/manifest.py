"""The pod of an attempt, from its spec. Pure: the same plan gives the same pod.

``$`` is doubled in arguments and variables: a cluster replaces ``$(NAME)`` in them, and scripts are full of that.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from executors.base import Attempt
from executors.errors import SpecRefusedError
from executors.kubernetes.containers import environment, escaped, security_context
from executors.kubernetes.labels import RESERVED_PREFIXES, TOKEN, pod_labels, pod_name
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.quantities import resources
from executors.kubernetes.services import service_container
from executors.kubernetes.volumes import HOME_PATH, HOME_VOLUME, Volumes
from executors.specs import EnvironmentSourceSpec, KubernetesSpec, TolerationSpec

Json = Any  # a JSON value

#: The name of the container that runs the task.
MAIN: Final = "main"
#: Where scripts run unless the spec says otherwise.
WORK_PATH: Final = f"{HOME_PATH}/work"
#: The cluster ends a pod by itself when its ant should have done so long ago: how long it may outlive its task's time
#: limit, in seconds, for its images, its after_script and its files.
DEADLINE_MARGIN_S: Final = 1800
_MAX_SECONDS = 2**31 - 1
#: Larger objects do not fit into the cluster's database.
_LIMIT_BYTES = 1_400_000
#: Longer arguments are refused by Linux (128 KiB, and one for the end); characters have up to four bytes.
_ARGUMENT_CHARS = 30_000
_WRAPPER = re.sub(r"(?m)^#.*\n", "", Path(__file__).with_name("wrapper.sh").read_text())
#: Variables of an attempt that mean something only on the ant's machine.
_LOCAL_VARIABLES = frozenset(["FORMICARY_ANT"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a pod is made from, beside its spec.

    ``mark`` begins the line by which the wrapper says that it ended. ``session`` names the process that makes the pod.
    ``after_limit_s`` is the time that an ``after_script`` may take.
    """

    attempt: Attempt
    spec: KubernetesSpec
    session: str
    token: str
    mark: str
    has_inputs: bool = False
    after_limit_s: float = 60.0
    owner_reference: Mapping[str, str] | None = None

    @property
    def work_path(self) -> str:
        """Returns the working directory in the container."""
        return self.spec.container.working_dir or WORK_PATH

    @property
    def has_script(self) -> bool:
        """Whether the wrapper runs the container, not the image's own command."""
        return has_script(self.spec)

    @property
    def is_wrapper_first(self) -> bool:
        """Whether the wrapper is the container's first process for certain, which nothing in the container can kill."""
        return self.has_script and not self.spec.container.entrypoint


def has_script(spec: KubernetesSpec) -> bool:
    """Whether a task brings lines of its own; without them nothing can be moved into or out of its container."""
    return bool(spec.script or spec.before_script)


def pod_manifest(plan: Plan, options: KubernetesOptions) -> dict[str, Json]:
    """Returns the pod.

    Raises:
        SpecRefusedError: it asks for what the ant does not allow, or for what no cluster takes.
    """
    _check(plan, options)
    attempt, spec = plan.attempt, plan.spec
    metadata: dict[str, Json] = {
        "name": pod_name(attempt),
        "labels": {**spec.pod_labels, **pod_labels(attempt, options.owner, plan.session)},
        "annotations": {**spec.pod_annotations, TOKEN: plan.token},
    }
    if plan.owner_reference is not None:
        metadata["ownerReferences"] = [dict(plan.owner_reference)]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _pod_spec(plan, options)}
    _check_texts(pod)
    return pod


def _pod_spec(plan: Plan, options: KubernetesOptions) -> dict[str, Json]:
    spec = plan.spec
    volumes = Volumes()
    main = _main_container(plan, options, volumes)
    services = [service_container(service, options, volumes, spec.security_context) for service in spec.services]
    names = [service.name for service in spec.services]
    pod: dict[str, Json] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": min(math.ceil(plan.attempt.timeout_s) + DEADLINE_MARGIN_S, _MAX_SECONDS),
        "terminationGracePeriodSeconds": 10,
        "enableServiceLinks": False,
        "automountServiceAccountToken": bool(spec.service_account),
        "serviceAccountName": spec.service_account,
        "securityContext": _pod_security(spec),
        "initContainers": services,
        "containers": [main],
        "volumes": volumes.manifest(),
        "hostAliases": [{"ip": "127.0.0.1", "hostnames": names}] if names else [],
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [_toleration(each) for each in spec.tolerations],
        "affinity": spec.affinity,
        "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets],
        "priorityClassName": spec.priority_class,
    }
    if spec.host_network:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return {key: value for key, value in pod.items() if value not in ("", [], {})}


def _main_container(plan: Plan, options: KubernetesOptions, volumes: Volumes) -> dict[str, Json]:
    spec, container = plan.spec, plan.spec.container
    command, arguments = _command(plan)
    main: dict[str, Json] = {
        "name": MAIN,
        "image": container.image,
        "imagePullPolicy": container.image_pull_policy,
        "command": command,
        "args": [escaped(word) for word in arguments],
        "workingDir": HOME_PATH if plan.has_script else container.working_dir,
        "env": environment({**_own_environment(plan), **spec.environment}),
        "envFrom": [_environment_source(each) for each in spec.env_from],
        "resources": resources(container, options),
        "securityContext": security_context(container.user, spec.security_context, container.privileged),
        "volumeMounts": [{"name": HOME_VOLUME, "mountPath": HOME_PATH}, *volumes.mounts(container.volumes)],
    }
    return {key: value for key, value in main.items() if value not in ("", [], {})}


def _command(plan: Plan) -> tuple[list[str], list[str]]:
    spec, container = plan.spec, plan.spec.container
    entrypoint = [escaped(word) for word in container.entrypoint]
    if not plan.has_script:
        return entrypoint, list(container.command)
    script = _pieces("\n".join((*spec.before_script, *spec.script)) + "\n")
    after = _pieces("\n".join(spec.after_script) + "\n" if spec.after_script else "")
    inputs = "in" if plan.has_inputs else ""
    limit = str(math.ceil(plan.after_limit_s))
    words = [_WRAPPER, "formicary", plan.mark, plan.work_path, inputs, limit, str(len(script)), *script, *after]
    return [*entrypoint, "sh", "-c"], words


def _pieces(text: str) -> list[str]:
    return [text[start : start + _ARGUMENT_CHARS] for start in range(0, len(text), _ARGUMENT_CHARS)]


def _own_environment(plan: Plan) -> dict[str, str]:
    given = {name: text for name, text in plan.attempt.environment.items() if name not in _LOCAL_VARIABLES}
    paths = {"FORMICARY_OUTPUT": f"{HOME_PATH}/output", "FORMICARY_RESULT_DIR": f"{HOME_PATH}/result"}
    return {**given, **paths, "HOME": plan.work_path, "LANG": "C.UTF-8", "TMPDIR": f"{HOME_PATH}/tmp"}


def _environment_source(spec: EnvironmentSourceSpec) -> Json:
    reference: dict[str, Json] = {"name": spec.config_map or spec.secret}
    if spec.optional:
        reference["optional"] = True
    source: dict[str, Json] = {"configMapRef" if spec.config_map else "secretRef": reference}
    if spec.prefix:
        source["prefix"] = spec.prefix
    return source


def _toleration(spec: TolerationSpec) -> Json:
    toleration: dict[str, Json] = {"operator": "Equal" if spec.value else "Exists"}
    known = {"key": spec.key, "value": spec.value, "effect": spec.effect}
    toleration |= {key: text for key, text in known.items() if text}
    if spec.for_s is not None:
        toleration["tolerationSeconds"] = int(spec.for_s)
    return toleration


def _pod_security(spec: KubernetesSpec) -> dict[str, Json]:
    security = spec.security_context
    context: dict[str, Json] = {}
    if not spec.container.privileged:
        context["seccompProfile"] = {"type": "RuntimeDefault"}
    if security is not None:
        if security.fs_group is not None:
            context["fsGroup"] = security.fs_group
        if security.supplemental_groups:
            context["supplementalGroups"] = list(security.supplemental_groups)
    return context


def _check(plan: Plan, options: KubernetesOptions) -> None:
    spec = plan.spec
    if not options.allow_privileged and (wish := next(_privileged_wishes(spec), None)):
        raise SpecRefusedError(
            f"{wish}: this ant does not allow it; it would with FORMICARY_KUBERNETES_ALLOW_PRIVILEGED=true"
        )
    for service in spec.services:
        if service.name == MAIN:
            raise SpecRefusedError(f'services: "{MAIN}" is the name of the task\'s own container; choose another')
    for word in [*spec.pod_labels, *spec.pod_annotations]:
        if word.startswith(RESERVED_PREFIXES):
            raise SpecRefusedError(f'pod_labels, pod_annotations: "{word}" is set by formicary; choose another name')
    for name in spec.environment:
        if name in plan.attempt.environment:
            raise SpecRefusedError(f"environment: {name} is set by formicary; choose another name")
    if not plan.has_script and (plan.has_inputs or spec.after_script):
        raise SpecRefusedError("script: artifacts and an after_script need a script on KUBERNETES; write one")


def _privileged_wishes(spec: KubernetesSpec) -> Iterator[str]:
    if spec.container.privileged:
        yield "container.privileged"
    if spec.host_network:
        yield "host_network"
    if spec.security_context is not None and spec.security_context.add_capabilities:
        yield "security_context.add_capabilities"
    for volumes in (spec.container.volumes, *(service.volumes for service in spec.services)):
        if any(volume.host_path for volume in volumes):
            yield "volumes.host_path"


def _check_texts(pod: dict[str, Json]) -> None:
    if any("\0" in text for text in _texts(pod)):
        raise SpecRefusedError("a text of the task holds a NUL character, which no process can be given; remove it")
    try:
        size = len(json.dumps(pod, ensure_ascii=False).encode())
    except UnicodeEncodeError as exc:
        raise SpecRefusedError("a text of the task holds half of a surrogate pair; remove it") from exc
    if size > _LIMIT_BYTES:
        raise SpecRefusedError(
            f"the pod's manifest has {size} bytes, and a cluster takes {_LIMIT_BYTES}; make the script shorter"
        )


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
