"""Services of a task as native sidecars: they start before the main container, and end after it. Pure."""

import math
from typing import Any

from executors.kubernetes.containers import environment, escaped, service_security
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.quantities import resources
from executors.kubernetes.volumes import Volumes
from executors.specs import ReadySpec, SecuritySpec, ServiceSpec

Json = Any  # a JSON value


def service_container(
    spec: ServiceSpec, options: KubernetesOptions, volumes: Volumes, security: SecuritySpec | None
) -> dict[str, Json]:
    """Returns the container of a service; the next one, and the task, starts when it is ready."""
    container: dict[str, Json] = {
        "name": spec.name,
        "image": spec.image,
        "imagePullPolicy": spec.image_pull_policy,
        "restartPolicy": "Always",
        "command": [escaped(word) for word in spec.entrypoint],
        "args": [escaped(word) for word in spec.command],
        "env": environment(spec.environment),
        "ports": [{"containerPort": port} for port in spec.ports],
        "resources": resources(spec, options),
        "securityContext": service_security(spec.user, security),
        "volumeMounts": volumes.mounts(spec.volumes),
        "startupProbe": _probe(spec.ready) if spec.ready is not None else {},
    }
    return {key: value for key, value in container.items() if value not in ("", [], {})}


def _probe(ready: ReadySpec) -> Json:
    """Returns the probe. It outlasts ``timeout_s``, which the executor watches itself: here a failure only restarts."""
    check: Json = {"tcpSocket": {"port": ready.port}} if ready.port else {"exec": {"command": list(ready.command)}}
    return {**check, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": math.ceil(ready.timeout_s) + 60}
