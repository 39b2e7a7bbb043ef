"""What the ant's account must be allowed to do, asked of the cluster itself."""

import asyncio
from typing import Final

from executors.errors import ExecutorError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError

#: Verb, resource and subresource; the Role of ``docs/executors/kubernetes.md`` grants exactly these.
NEEDED: Final = (
    ("create", "pods", ""),
    ("get", "pods", ""),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("delete", "pods", ""),
    ("get", "pods", "log"),
    ("create", "pods", "exec"),
    ("get", "pods", "exec"),  # of the two it is this one that a WebSocket needs
)
_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def check_access(cluster: Cluster) -> None:
    """Proves that the cluster answers and the account may do what pods of tasks need.

    Raises:
        ExecutorError: it does not, or names what is not allowed.
    """
    answers = await asyncio.gather(*(_is_allowed(cluster, *right) for right in NEEDED))
    missing = [_words(*right) for right, is_allowed in zip(NEEDED, answers, strict=True) if not is_allowed]
    if missing:
        raise ExecutorError(
            f"the cluster does not allow the ant to {', '.join(missing)} in namespace {cluster.namespace}; "
            "docs/executors/kubernetes.md has a Role with what is needed"
        )


async def _is_allowed(cluster: Cluster, verb: str, resource: str, subresource: str) -> bool:
    attributes = {"namespace": cluster.namespace, "verb": verb, "resource": resource, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        answer = await cluster.request("POST", _PATH, body=review)
    except ApiRefusedError as exc:
        if exc.status == 401:
            raise ExecutorError("the cluster does not know the ant's credentials (401); renew the kubeconfig") from exc
        return True  # who may not even ask learns it at the first pod
    return bool(answer.get("status", {}).get("allowed"))


def _words(verb: str, resource: str, subresource: str) -> str:
    return f"{verb} {resource}{'/' if subresource else ''}{subresource}"
