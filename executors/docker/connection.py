"""The connection to an engine: over its socket, TCP or TLS, made on first use; given up where the engine falls silent.

Calls may last (a pull, the wait for a container), so no limit in time tells that nothing will come any more. Who waits
for one asks the engine now and then, on a connection of its own, whether it is there; without an answer the call ends.
A connection that died alone is the kernel's to notice: it probes those that are idle.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from aiodocker import Docker, DockerError

from executors.docker.address import is_local
from executors.docker.errors import EngineLostError, EngineRefusedError
from executors.errors import ExecutorError

#: No call that the engine can answer at once takes longer, in seconds; a loaded machine needs several to start one.
CALL_LIMIT_S = 120.0
#: The status that aiodocker gives a connection that failed.
_NO_CONNECTION = 900
#: When the kernel probes an idle connection, in seconds, how often, and after how many it counts as dead.
_PROBES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class Connection:
    """All connections to one engine. ``url`` is ``unix:///path`` or ``tcp://host:port``."""

    def __init__(self, url: str, silence_s: float) -> None:
        """Prepares for use.

        Args:
            url: where the engine is.
            silence_s: how long it may give no sign of life while it is waited for.
        """
        self.url = url
        self._look_s = silence_s / 2
        self._docker: Docker | None = None
        #: Those with former certificates, which calls may still use.
        self._former: list[Docker] = []
        self._looks: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._tls_files: tuple[tuple[int, int], ...] | None = None

    async def close(self) -> None:
        """Closes all connections; safe twice and before use."""
        for docker in [*self._former, *([self._docker] if self._docker is not None else [])]:
            await docker.close()
            await docker.connector.close()
        if self._looks is not None:
            await self._looks.close()
        self._former.clear()
        self._docker = self._looks = None

    @asynccontextmanager
    async def calling(self, doing: str, limit_s: float | None = CALL_LIMIT_S) -> AsyncIterator[Docker]:
        """Yields the client for calls that together take at most ``limit_s``; None is for as long as the engine lives.

        Raises:
            EngineLostError: the engine cannot be reached, has fallen silent, or did not answer in time.
            EngineRefusedError: it answered that it will not.
        """
        watch: _Watch | None = None
        try:
            async with asyncio.timeout(limit_s) as limit:
                watch = _Watch(self, limit, self._look_s)
                try:
                    yield self._client()
                finally:
                    watch.stop()
        except TimeoutError as exc:
            is_silent = watch is not None and watch.is_silent
            reason = "it gives no sign of life" if is_silent else f"no answer within {limit_s} s"
            raise EngineLostError(self.url, doing, reason) from exc
        except DockerError as exc:
            if exc.status == _NO_CONNECTION:
                raise EngineLostError(self.url, doing, exc.message) from exc
            raise EngineRefusedError(doing, exc.status, exc.message) from exc
        except (aiohttp.ClientError, ConnectionError) as exc:
            raise EngineLostError(self.url, doing, str(exc) or type(exc).__name__) from exc

    async def answers(self) -> bool:
        """Tells whether the engine answers on a new connection."""
        if self._looks is None:
            self._looks = aiohttp.ClientSession(connector=self._new_connector(force_close=True))
        self._renew()
        try:
            async with (
                asyncio.timeout(self._look_s),
                self._looks.get(f"{self._http_url()}/_ping", ssl=self._tls or True),
            ):
                return True
        except (aiohttp.ClientError, OSError):  # among them what is late
            return False

    def _client(self) -> Docker:
        """Returns the client, made on first use: it needs a running loop."""
        self._renew()
        if self._docker is None:
            url = "unix://localhost" if is_local(self.url) else self._http_url()
            self._docker = Docker(url, connector=self._new_connector())
        return self._docker

    def _renew(self) -> None:
        """Takes the certificates that there are now; calls that run go on with the former ones.

        Raises:
            ExecutorError: they will not do, and there are none from before.
        """
        if is_local(self.url) or not _has_tls() or (files := _tls_files()) == self._tls_files:
            return
        try:
            self._tls = _tls_context()
        except ExecutorError:
            if self._tls is None:
                raise
            return  # some files are new already, and some are not
        self._tls_files = files
        if self._docker is not None:
            self._former.append(self._docker)
            self._docker = None

    def _new_connector(self, *, force_close: bool = False) -> aiohttp.BaseConnector:
        if is_local(self.url):
            return aiohttp.UnixConnector(self.url.removeprefix("unix://"), limit=0, force_close=force_close)
        return aiohttp.TCPConnector(
            ssl=self._tls or True, limit=0, force_close=force_close, socket_factory=_probed_socket
        )

    def _http_url(self) -> str:
        if is_local(self.url):
            return "http://localhost"
        return f"{'https' if _has_tls() else 'http'}://{self.url.partition('://')[2]}"


class _Watch:
    """Ends a call by its time limit when the engine gives no sign of life; short calls cost it a timer."""

    def __init__(self, connection: Connection, limit: asyncio.Timeout, every_s: float) -> None:
        self.is_silent = False
        self._connection = connection
        self._limit = limit
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(every_s, self._begin)

    def stop(self) -> None:
        """Ends the watch; the call is over."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            if not await self._connection.answers():
                self.is_silent = True
                self._limit.reschedule(asyncio.get_running_loop().time())
                return
            await asyncio.sleep(self._every_s)


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Returns a socket whose connection ends when the other side does not answer the kernel any more."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if hasattr(socket, name):  # macOS has not all of them
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _has_tls() -> bool:
    return bool(os.environ.get("DOCKER_TLS_VERIFY"))


def _tls_folder() -> Path:
    return Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")


def _tls_files() -> tuple[tuple[int, int], ...]:
    """Returns what is another when a file was written anew; what is not there is left out."""
    found = []
    for name in ("ca.pem", "cert.pem", "key.pem"):
        with suppress(OSError):
            status = (_tls_folder() / name).stat()
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)


def _tls_context() -> ssl.SSLContext:
    """Returns what ``DOCKER_CERT_PATH`` asks for, as the engine's own client reads it.

    Raises:
        ExecutorError: the files are not there, or are no certificates.
    """
    folder = _tls_folder()
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    except OSError as exc:  # among them what is no certificate
        message = f"DOCKER_TLS_VERIFY wants ca.pem, cert.pem and key.pem in {folder}, where DOCKER_CERT_PATH leads"
        raise ExecutorError(f"{message}: {exc}") from exc
    return context
