"""The connection to one cluster: credentials, requests, streams and exec, with the errors of ``errors.py``.

The client's own models and watch are not used: it returns logs that are JSON as Python's idea of them, checks no status
of a stream, has no time limits, and reconnects a watch without a pause. What is taken from it are credentials
(kubeconfig with its plugins, service account with its rotating token), TLS and its session.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from executors.errors import ExecutorError
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.kubeconfig import check_kubeconfig

Json = Any  # a JSON value
Query = Sequence[tuple[str, str]]

#: Time to connect, in seconds.
CONNECT_S: Final = 10.0
#: Time for the answer to a plain request, in seconds.
REQUEST_S: Final = 30.0
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
#: What a connection that broke, or was never made, raises.
LOST: Final = (aiohttp.ClientError, TimeoutError, OSError, EOFError)


class Cluster:
    """Speaks to the API server of one cluster, in one namespace.

    Args:
        namespace: where pods live; empty: the one of the kubeconfig's context or of the ant's own pod.
        kubeconfig: the file; empty: ``KUBECONFIG``, else the service account of the pod this runs in, else
            ``~/.kube/config``.
    """

    def __init__(self, namespace: str = "", kubeconfig: str = "") -> None:
        self.namespace = namespace
        self._kubeconfig = kubeconfig
        self._client: Any = None
        self._date = ""

    @property
    def server_time(self) -> datetime | None:
        """Returns the time of the API server's clock at its last plain answer; None where it did not say."""
        try:
            return parsedate_to_datetime(self._date)
        except ValueError:
            return None

    async def place(self) -> str:
        """Returns what tells this namespace of this cluster from all others, as this process reaches it.

        Two clusters never have one place. Two addresses of one cluster are two places: that costs choice, no promise.
        """
        configuration = self._opened().configuration
        authority = await asyncio.to_thread(_content, configuration.ssl_ca_cert)
        words = f"{configuration.host}\n{self.namespace}\n{authority}"
        return hashlib.sha256(words.encode()).hexdigest()[:10]

    @property
    def is_inside(self) -> bool:
        """Whether this process runs in a pod of the cluster, with its service account."""
        return not self._kubeconfig and not os.environ.get("KUBECONFIG") and "KUBERNETES_SERVICE_HOST" in os.environ

    async def open(self) -> None:
        """Reads the credentials; connects to nothing.

        Raises:
            ExecutorError: there are none, or they cannot be read.
        """
        if self._client is not None:
            return
        if not self.is_inside:  # before the driver, whose import takes its time
            await asyncio.to_thread(check_kubeconfig, self._kubeconfig)
        try:
            from kubernetes_asyncio.client import ApiClient, Configuration
        except ImportError as exc:
            raise ExecutorError("KUBERNETES needs kubernetes-asyncio: pip install 'formicary[kubernetes]'") from exc

        configuration = Configuration()
        # Watches, followed logs and exec sessions each hold a connection: a limit would let them starve plain requests.
        configuration.connection_pool_maxsize = 0
        await self._load(configuration)
        self._client = ApiClient(configuration)

    async def close(self) -> None:
        """Closes all connections. Safe twice and before ``open``."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def request(self, method: str, path: str, *, query: Query = (), body: Json = None) -> dict[str, Json]:
        """Returns the JSON answer to a plain request.

        Raises:
            ApiRefusedError: the server said no.
            ApiUnreachableError: there was no answer; the request may have been carried out all the same.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_S, sock_connect=CONNECT_S)
        try:
            response = await self._send(method, path, query, timeout, body)
            async with response:
                self._date = response.headers.get("Date", "")
                return await _answer(response)
        except LOST as exc:
            raise unreachable(exc) from exc

    @asynccontextmanager
    async def stream(self, path: str, *, query: Query = (), idle_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opens a GET whose answer comes in pieces, for as long as they come at least every ``idle_s`` seconds.

        Raises:
            ApiRefusedError: the server said no.
            ApiUnreachableError: there was no answer, or its end is missing.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=idle_s)
        try:
            response = await self._send("GET", path, query, timeout, None)
            if response.status != 200:
                async with response:
                    await _answer(response)
        except LOST as exc:
            raise unreachable(exc) from exc
        async with response:
            yield _pieces(response)

    @asynccontextmanager
    async def exec(
        self, pod: str, container: str, command: Sequence[str], *, has_input: bool
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Runs a command in a container; the socket speaks the channel protocol.

        Raises:
            ApiRefusedError: the server said no.
            ApiUnreachableError: the connection broke.
        """
        query = [("container", container), ("stdout", "1"), ("stderr", "1"), ("stdin", "1" if has_input else "0")]
        query += [("command", word) for word in command]
        try:
            socket = await self._connect(pod, query)
        except ApiRefusedError as exc:
            if exc.status != 401:
                raise
            await self._renew()
            socket = await self._connect(pod, query)
        try:
            yield socket
        finally:
            await socket.close()

    def pod_path(self, name: str = "") -> str:
        """Returns the path of a pod, or of all pods."""
        return f"/api/v1/namespaces/{self.namespace}/pods" + (f"/{name}" if name else "")

    async def _send(
        self, method: str, path: str, query: Query, timeout: aiohttp.ClientTimeout, body: Json
    ) -> aiohttp.ClientResponse:
        """Sends a request; credentials that the server does not take any more are read anew, once."""
        response = await self._call(method, path, query, timeout, body)
        if response.status == 401:
            response.close()
            await self._renew()
            response = await self._call(method, path, query, timeout, body)
        return response

    async def _renew(self) -> None:
        """Reads the credentials anew.

        Raises:
            ApiUnreachableError: they cannot be read; they may be there again at the next try.
        """
        try:
            await self._load(self._opened().configuration)
        except ExecutorError as exc:  # as of a token that a program renews
            raise ApiUnreachableError(str(exc)) from exc

    async def _connect(self, pod: str, query: Query) -> aiohttp.ClientWebSocketResponse:
        client = self._opened()
        url = URL(client.configuration.host + self.pod_path(pod) + "/exec").with_query(query)
        headers: dict[str, str] = {}
        await client.update_params_for_auth(headers, [], ["BearerToken"])
        session: aiohttp.ClientSession = client.rest_client.pool_manager
        try:
            async with asyncio.timeout(REQUEST_S):
                return await session.ws_connect(
                    url,
                    headers=headers,
                    protocols=_EXEC_PROTOCOLS,
                    max_msg_size=0,
                    heartbeat=CONNECT_S,
                    proxy=client.rest_client.proxy,
                )
        except aiohttp.WSServerHandshakeError as exc:
            raise ApiRefusedError(exc.status, "exec refused", exc.message) from exc
        except LOST as exc:
            raise unreachable(exc) from exc

    async def _call(
        self, method: str, path: str, query: Query, timeout: aiohttp.ClientTimeout, body: Json
    ) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._opened().call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Accept": "application/json, */*"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=timeout,
        )
        return response

    def _opened(self) -> Any:
        if self._client is None:
            raise ApiUnreachableError("the connection to the cluster is closed")
        return self._client

    async def _load(self, configuration: Any) -> None:
        from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

        if not self.is_inside:
            await asyncio.to_thread(check_kubeconfig, self._kubeconfig)
        try:
            if self.is_inside:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # untyped there
                self.namespace = self.namespace or await asyncio.to_thread(_own_namespace)
                return
            file = self._kubeconfig or None
            loader = await load_kube_config(config_file=file, client_configuration=configuration, persist_config=False)
        except (ConfigException, OSError, ValueError, KeyError) as exc:
            raise ExecutorError(
                f"KUBERNETES finds no cluster: {exc}; set KUBECONFIG to a kubeconfig file, or run the ant in a pod"
            ) from exc
        context = loader.current_context or {}
        self.namespace = self.namespace or str(context.get("context", {}).get("namespace") or "default")


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yields an answer as it comes; only what reading raises is translated, never what the reader does."""
    pieces = response.content.iter_any()
    while True:
        try:
            piece = await anext(pieces, b"")
        except LOST as exc:
            raise unreachable(exc) from exc
        if not piece:
            return
        yield piece


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Json]:
    data = await response.read()
    try:
        body = json.loads(data)
    except ValueError:
        body = data[:500].decode(errors="replace")
    if not 200 <= response.status < 300:
        raise ApiRefusedError.of(response.status, body)
    if not isinstance(body, dict):
        raise ApiUnreachableError(f"something that is no API server answered: {str(body)[:200]!r}")
    return body


def unreachable(exc: BaseException) -> ApiUnreachableError:
    """Returns the error for a connection that broke."""
    words = str(exc) or type(exc).__name__
    return ApiUnreachableError(f"no answer from the cluster's API server: {words}")


def _content(path: str | None) -> str:
    return Path(path).read_text().strip() if path else ""


def _own_namespace() -> str:
    return (_SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
