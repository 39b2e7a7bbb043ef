"""A small API server that answers as a real one does, where a test is about what it refuses or how it hangs up."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from executors.kubernetes.cluster import Cluster

Json = Any  # a JSON value
#: What a command in a container does: it is given the socket of its exec request.
Command = Callable[[web.WebSocketResponse], Awaitable[None]]


class ApiServer:
    """Takes one token or client certificate; has every pod, and runs every command as the test says."""

    def __init__(self) -> None:
        #: Who is let in: ``Bearer TOKEN``, or the common name of a certificate.
        self.valid = "Bearer old"
        #: Who came, in which way: a plain request, or exec.
        self.came: list[tuple[str, str]] = []
        self.command: Command = succeed
        #: The pods that each list tells of, the last one for ever, and the names of those that were deleted.
        self.lists: list[list[Json]] = [[]]
        self.deleted: asyncio.Queue[str] = asyncio.Queue()
        #: What a log waits for in its middle.
        self.is_log_over = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers any request."""
        who = request.headers.get("Authorization") or _common_name(request)
        is_exec = request.path.endswith("/exec")
        self.came.append((who, "exec" if is_exec else "plain"))
        if who != self.valid:
            return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)
        if request.path.endswith("/log"):
            return await self._log(request)
        if request.method == "DELETE":
            await self.deleted.put(request.path.rpartition("/")[2])
        if not is_exec:
            pods = self.lists[0] if len(self.lists) == 1 else self.lists.pop(0)
            return web.json_response({"kind": "Pod", "items": pods, "metadata": {}})
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        await self.command(socket)
        await socket.close()
        return socket

    async def _log(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await self.is_log_over.wait()
        await response.write(b"two")
        return response


async def succeed(socket: web.WebSocketResponse) -> None:
    """Ends a command well."""
    await end(socket, 0)


async def end(socket: web.WebSocketResponse, code: int) -> None:
    """Ends a command."""
    causes = [{"reason": "ExitCode", "message": str(code)}]
    status = {"status": "Failure", "details": {"causes": causes}} if code else {"status": "Success"}
    await socket.send_bytes(b"\x03" + json.dumps(status).encode())


def _common_name(request: web.Request) -> str:
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    names = [dict(part).get("commonName", "") for part in (certificate or {}).get("subject", ())]
    return "".join(names)


Serve = Callable[..., Awaitable[ApiServer]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts API servers on free ports."""
    runners: list[web.AppRunner] = []

    async def start(tls: ssl.SSLContext | None = None) -> ApiServer:
        server, app = ApiServer(), web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        server.port = runner.addresses[0][1]
        return server

    yield start
    for runner in runners:
        await runner.cleanup()


class Kubeconfig:
    """A kubeconfig file, which can be written anew."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def write(self, server: Json, user: Json) -> None:
        """Writes it: where the cluster is, and who comes."""
        content = {
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "jobs"}}],
            "current-context": "x",
        }
        self.file.write_text(json.dumps(content))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Kubeconfig:
    return Kubeconfig(tmp_path / "kubeconfig")


@pytest_asyncio.fixture
async def server(serve: Serve, kubeconfig: Kubeconfig) -> ApiServer:
    """One that the kubeconfig leads to, without TLS."""
    server = await serve()
    kubeconfig.write({"server": f"http://127.0.0.1:{server.port}"}, {"token": "old"})
    return server


@pytest_asyncio.fixture
async def connection(server: ApiServer, kubeconfig: Kubeconfig) -> AsyncIterator[Cluster]:
    """A connection to that server."""
    cluster = Cluster(kubeconfig=str(kubeconfig.file))
    await cluster.open()
    yield cluster
    await cluster.close()
