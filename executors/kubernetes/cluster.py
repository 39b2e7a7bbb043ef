"""The connection to one cluster: credentials, requests, streams and exec, with the errors of ``errors.py``.

The client's own models and watch are not used: it returns logs that are JSON as Python's idea of them, checks no status
of a stream, has no time limits, reconnects a watch without a pause, and keeps the certificate that it began with. What
is taken from it are credentials (kubeconfig with its plugins, service account with its rotating token).
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
from yarl import URL

from executors.errors import ExecutorError
from executors.kubernetes.credentials import Credentials, is_inside, read
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError

T = TypeVar("T")

Json = Any  # a JSON value
Query = Sequence[tuple[str, str]]

#: Time to connect, in seconds.
CONNECT_S: Final = 10.0
#: Time for the answer to a plain request, in seconds.
REQUEST_S: Final = 30.0
#: The most that an event of a watch is read ahead in one piece.
_READ_BYTES: Final = 2 * 1024 * 1024
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
        self._session: aiohttp.ClientSession | None = None
        self._credentials: Credentials | None = None
        self._renewing = asyncio.Lock()
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
        configuration = self._opened()[1].configuration
        authority = await asyncio.to_thread(_content, configuration.ssl_ca_cert)
        words = f"{configuration.host}\n{self.namespace}\n{authority}"
        return hashlib.sha256(words.encode()).hexdigest()[:10]

    @property
    def is_inside(self) -> bool:
        """Whether this process runs in a pod of the cluster, with its service account."""
        return is_inside(self._kubeconfig)

    async def open(self) -> None:
        """Reads the credentials; connects to nothing.

        Raises:
            ExecutorError: there are none, or they cannot be read.
        """
        if self._session is not None:
            return
        self._credentials = await read(self._kubeconfig)
        self.namespace = self.namespace or self._credentials.namespace
        # Watches, followed logs and exec sessions each hold a connection: a limit would let them starve plain requests.
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=True, read_bufsize=_READ_BYTES)

    async def close(self) -> None:
        """Closes all connections. Safe twice and before ``open``."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
            socket = await self._with_renewal(lambda session, who: self._connect(session, who, pod, query))
        except LOST as exc:
            raise unreachable(exc) from exc
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
        """Returns the answer to a request, of which only the head has come.

        Raises:
            ApiRefusedError: the server said no.
        """

        async def send(session: aiohttp.ClientSession, who: Credentials) -> aiohttp.ClientResponse:
            response = await session.request(
                method,
                URL(who.configuration.host + path).with_query(query),
                headers={"Accept": "application/json, */*", **await who.headers()},
                json=body,
                timeout=timeout,
                ssl=who.tls,
                server_hostname=who.configuration.tls_server_name,
                proxy=who.configuration.proxy,
            )
            if not 200 <= response.status < 300:
                async with response:
                    raise ApiRefusedError.of(response.status, await _body(response))
            return response

        return await self._with_renewal(send)

    async def _connect(
        self, session: aiohttp.ClientSession, who: Credentials, pod: str, query: Query
    ) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(REQUEST_S):
                return await session.ws_connect(
                    URL(who.configuration.host + self.pod_path(pod) + "/exec").with_query(query),
                    headers=await who.headers(),
                    protocols=_EXEC_PROTOCOLS,
                    max_msg_size=0,
                    heartbeat=CONNECT_S,
                    ssl=who.tls,
                    server_hostname=who.configuration.tls_server_name,
                    proxy=who.configuration.proxy,
                )
        except aiohttp.WSServerHandshakeError as exc:
            raise ApiRefusedError(exc.status, "exec refused", exc.message) from exc

    async def _with_renewal(self, call: Callable[[aiohttp.ClientSession, Credentials], Awaitable[T]]) -> T:
        """Returns what a call returns; credentials that are not taken any more are read anew, and it is made again."""
        session, who = self._opened()
        try:
            return await call(session, who)
        except aiohttp.ClientSSLError:
            pass  # perhaps the cluster has a new authority
        except ApiRefusedError as exc:
            if exc.status != 401:
                raise
        await self._renew(who)
        return await call(*self._opened())

    async def _renew(self, refused: Credentials) -> None:
        """Reads the credentials anew, once for all who were refused with the same ones.

        What runs over a connection made with the former ones goes on.

        Raises:
            ApiUnreachableError: they cannot be read, or are another cluster's; that may be otherwise at the next try.
        """
        async with self._renewing:
            if self._credentials is not refused:
                return
            try:
                renewed = await read(self._kubeconfig, refused)
            except ExecutorError as exc:  # as of a token that a program renews
                raise ApiUnreachableError(str(exc)) from exc
            if renewed.configuration.host != refused.configuration.host:  # there no pod of ours is, which says nothing
                raise ApiUnreachableError("the kubeconfig leads to another API server than when the ant was started")
            self._credentials = renewed

    def _opened(self) -> tuple[aiohttp.ClientSession, Credentials]:
        if self._session is None or self._credentials is None:
            raise ApiUnreachableError("the connection to the cluster is closed")
        return self._session, self._credentials


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
    body = await _body(response)
    if not isinstance(body, dict):
        raise ApiUnreachableError(f"something that is no API server answered: {str(body)[:200]!r}")
    return body


async def _body(response: aiohttp.ClientResponse) -> Json:
    """Returns an answer's JSON, or the beginning of what is none."""
    data = await response.read()
    try:
        return json.loads(data)
    except ValueError:
        return data[:500].decode(errors="replace")


def unreachable(exc: BaseException) -> ApiUnreachableError:
    """Returns the error for a connection that broke."""
    words = str(exc) or type(exc).__name__
    return ApiUnreachableError(f"no answer from the cluster's API server: {words}")


def _content(path: str | None) -> str:
    return Path(path).read_text().strip() if path else ""
