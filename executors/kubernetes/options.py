"""What an ant may set about its pods."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """Settings of KUBERNETES. Sizes and processors are texts as in ``executors.quantities``; empty: not set.

    Attributes:
        namespace: Where pods are made; empty: the one of the kubeconfig's context, or of the ant's own pod.
        kubeconfig: The file; empty: ``KUBECONFIG``, else the pod's service account, else ``~/.kube/config``.
        owner: Whose pods these are, the same after a restart of the ant: what another process of this owner left is
            removed at the start. Empty: nothing is.
        allow_privileged: Tasks may be privileged, add capabilities, use the node's network and mount its folders.
        cpu_min: No container of a task requests less.
        cpu_max: No container of a task gets more; one that asks for it is refused, one without a limit gets this one.
        memory_min: As ``cpu_min``.
        memory_max: As ``cpu_max``.
        direct_bytes: Files of at least this size go straight between a pod and the artifact store, where both can; 0:
            none does.
        schedule_timeout_s: How long a pod may wait for a node.
        image_timeout_s: How long an image that cannot be pulled, or anything else that keeps a container from being
            made, is tried again.
    """

    namespace: str = ""
    kubeconfig: str = ""
    owner: str = ""
    allow_privileged: bool = False
    cpu_min: str = ""
    cpu_max: str = ""
    memory_min: str = ""
    memory_max: str = ""
    direct_bytes: int = 16 * 1024 * 1024
    schedule_timeout_s: float = 300.0
    image_timeout_s: float = 60.0


def has_cluster(options: KubernetesOptions) -> bool:
    """Tells whether a cluster was named, or is where clients look for one; needs no driver."""
    is_named = bool(options.kubeconfig or os.environ.get("KUBECONFIG") or os.environ.get("KUBERNETES_SERVICE_HOST"))
    return is_named or Path("~/.kube/config").expanduser().is_file()
