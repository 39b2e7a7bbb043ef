"""Where a cluster is and who comes to it: read from a kubeconfig with its plugins, or from the pod this runs in.

Each reading makes a new value. A TLS context is kept over readings for as long as nothing it was made of has changed,
since connections are shared by those who have the same context, and by nobody else.
"""

import asyncio
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from executors.errors import ExecutorError
from executors.kubernetes.kubeconfig import check_kubeconfig

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True, eq=False)
class Credentials:
    """One reading. ``namespace`` is that of the kubeconfig's context or of the pod this runs in."""

    configuration: Any  # the client's own
    namespace: str
    tls: ssl.SSLContext
    #: What ``tls`` was made of, as a digest.
    origin: bytes

    async def headers(self) -> dict[str, str]:
        """Returns what says who comes; none where only a certificate does. Tokens that rotate are the present ones."""
        found = (await self.configuration.auth_settings()).get("BearerToken")
        return {found["key"]: found["value"]} if found and found["value"] else {}


def is_inside(kubeconfig: str) -> bool:
    """Whether this process runs in a pod of the cluster, with its service account."""
    return not kubeconfig and not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ


async def read(kubeconfig: str, former: Credentials | None = None) -> Credentials:
    """Reads the credentials there are now; connects to nothing, but may run a plugin that does.

    Raises:
        ExecutorError: there are none, or they cannot be read.
    """
    inside = is_inside(kubeconfig)
    if not inside:  # before the driver, whose import takes its time
        await asyncio.to_thread(check_kubeconfig, kubeconfig)
    try:
        from kubernetes_asyncio.client import Configuration
        from kubernetes_asyncio.config import ConfigException
    except ImportError as exc:
        raise ExecutorError("KUBERNETES needs kubernetes-asyncio: pip install 'formicary[kubernetes]'") from exc
    configuration = Configuration()
    try:
        namespace = await (_from_pod(configuration) if inside else _from_file(configuration, kubeconfig))
        origin = await asyncio.to_thread(_origin, configuration)
        is_kept = former is not None and former.origin == origin
        tls = former.tls if former is not None and is_kept else await asyncio.to_thread(_tls, configuration)
    except (ConfigException, OSError, ValueError, KeyError) as exc:
        raise ExecutorError(
            f"KUBERNETES finds no cluster: {exc}; set KUBECONFIG to a kubeconfig file, or run the ant in a pod"
        ) from exc
    return Credentials(configuration, namespace, tls, origin)


async def _from_pod(configuration: Any) -> str:
    from kubernetes_asyncio.config import load_incluster_config

    load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # untyped there
    return await asyncio.to_thread(_own_namespace)


async def _from_file(configuration: Any, kubeconfig: str) -> str:
    from kubernetes_asyncio.config import load_kube_config

    loader = await load_kube_config(kubeconfig or None, client_configuration=configuration, persist_config=False)
    context = loader.current_context or {}
    return str(context.get("context", {}).get("namespace") or "default")


def _own_namespace() -> str:
    return (_SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"


def _origin(configuration: Any) -> bytes:
    digest = hashlib.sha256(repr(configuration.verify_ssl).encode())
    for path in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        digest.update(hashlib.sha256(Path(path).read_bytes() if path else b"").digest())
    return digest.digest()


def _tls(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
