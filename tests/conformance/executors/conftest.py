"""One specimen per executor, and a web server for those that need one."""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestServer

from executors.base import Executor, Run, Stream
from executors.options import ExecutorOptions
from executors.registry import make_executors
from executors.specs import DummySpec, HttpSpec, PythonSpec, ShellSpec, Spec
from executors.testing import CollectingSink, RecordingGuard, Specimen, make_attempt
from executors.websocket import WebsocketExecutor
from tests.conformance.executors.containers import docker_specimen
from tests.conformance.executors.remote_workers import Crew, OpenExecutor, remote_specimen
from tests.conformance.executors.services import Service, messaging_specimen, serve
from tests.engines import TestEngine, needs_engine, running_engine

MakeExecutor = Callable[..., Awaitable[Executor]]
SAMPLE_FOLDER = Path(__file__).parent / "sample"
KINDS = (
    "DUMMY",
    "SHELL",
    "HTTP_GET",
    "PYTHON async",
    "PYTHON sync",
    "PYTHON pool",
    "WEBSOCKET",
    "MESSAGING",
    pytest.param("DOCKER", marks=needs_engine),
)
#: Lines of 64 KiB each.
BIG_LINES = 64


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serve() as service:
        yield service


@pytest.fixture
def options(service: Service) -> ExecutorOptions:
    return ExecutorOptions(
        python_paths=(SAMPLE_FOLDER,),
        python_processes=2,
        shell_leftover_grace_s=0.2,
        python_threads=100,
        workers_listen=("127.0.0.1", 0),
        exchange=service.exchange,
    )


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
async def make_executor(options: ExecutorOptions) -> AsyncIterator[MakeExecutor]:
    made: list[Executor] = []

    async def make(method: str, **changes: Any) -> Executor:
        executor = make_executors([method], replace(options, **changes))[method]
        made.append(executor)
        await executor.check()
        return executor

    yield make
    for executor in made:
        await executor.close()


@pytest.fixture(autouse=True)
def _release_functions() -> Iterator[None]:
    """Lets functions return that hold their thread on purpose."""
    if "sample_functions" in sys.modules:
        sys.modules["sample_functions"].released.clear()
        sys.modules["sample_functions"].begun.clear()
    yield
    if "sample_functions" in sys.modules:
        sys.modules["sample_functions"].released.set()


@pytest.fixture
async def web_server() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/status/{code}", _answer_status)
    app.router.add_route("*", "/echo", _answer_echo)
    app.router.add_get("/slow", _answer_never)
    app.router.add_get("/body/{kind}", _answer_body)
    app.router.add_get("/redirect/{count}", _answer_redirect)
    app.router.add_get("/break", _answer_half)
    server = TestServer(app)
    server.skip_url_asserts = True
    await server.start_server(shutdown_timeout=0.1)
    yield server
    await server.close()


async def _answer_status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["code"]), text="as you wish")


async def _answer_echo(request: web.Request) -> web.Response:
    seen = {
        "verb": request.method,
        "query": dict(request.query),
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": await request.text(),
    }
    return web.json_response(seen, headers={"X-Twice": "one", "Set-Cookie": "session=1"})


async def _answer_never(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _answer_body(request: web.Request) -> web.Response:
    match request.match_info["kind"]:
        case "big-json":
            return web.json_response(["x" * 1024] * 2048)
        case "big-text":
            return web.Response(text="y" * 2 * 1024 * 1024)
        case "bomb":
            body = gzip.compress(b"z" * 50 * 1024 * 1024)
            return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"})
        case "no-json":
            return web.Response(text="<html>", content_type="application/json")
        case "problem":
            return web.Response(text='{"title":"no"}', content_type="application/problem+json", status=409)
        case "empty-json":
            return web.Response(content_type="application/json")
        case _:
            return web.Response(body=b"caf\xe9", headers={"Content-Type": "text/plain; charset=latin-1"})


async def _answer_redirect(request: web.Request) -> web.Response:
    count = int(request.match_info["count"])
    raise web.HTTPFound(f"/redirect/{count - 1}" if count else "/status/200")


async def _answer_half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    crew = Crew()
    yield crew
    await crew.close()


@pytest.fixture
async def open_executor() -> AsyncIterator[OpenExecutor]:
    made: list[WebsocketExecutor] = []

    async def build(**options: Any) -> WebsocketExecutor:
        executor = WebsocketExecutor(ExecutorOptions(**{"workers_listen": ("127.0.0.1", 0), **options}))
        made.append(executor)
        await executor.check()
        return executor

    yield build
    for executor in made:
        await executor.close()


@pytest.fixture
async def executor(open_executor: OpenExecutor) -> WebsocketExecutor:
    return await open_executor()


@pytest.fixture(params=KINDS)
async def specimen(
    request: pytest.FixtureRequest,
    make_executor: MakeExecutor,
    web_server: TestServer,
    crew: Crew,
) -> Specimen:
    kind: str = request.param
    method, _, variant = kind.partition(" ")
    has_engine = method == "DOCKER"
    changes = {"docker_host": request.getfixturevalue("engine").url} if has_engine else {}
    executor = await make_executor(method, **changes)
    match method:
        case "DUMMY":
            return _dummy(executor)
        case "SHELL":
            return _shell(executor)
        case "HTTP_GET":
            return _http(executor, web_server)
        case "MESSAGING":
            return messaging_specimen(executor)
        case "WEBSOCKET":
            assert isinstance(executor, WebsocketExecutor)
            return await remote_specimen(executor, crew)
        case "DOCKER":
            return docker_specimen(executor)
        case _:
            return _python(executor, variant)


def _dummy(executor: Executor) -> Specimen:
    return Specimen(
        executor=executor,
        success=DummySpec(),
        failure=DummySpec(exit_code=3),
        talking=DummySpec(lines=("hello",)),
        said=b"hello\n",
        lasting=DummySpec(duration_s=60),
        stubborn=DummySpec(duration_s=60, ignore_stop=True),
        refused=ShellSpec(),
        big=DummySpec(lines=("x" * 65535,) * BIG_LINES),
        big_bytes=BIG_LINES * 65536,
    )


def _shell(executor: Executor) -> Specimen:
    return Specimen(
        executor=executor,
        success=ShellSpec(script=("true",)),
        failure=ShellSpec(script=("exit 3",)),
        talking=ShellSpec(script=("echo hello",)),
        said=b"hello\n",
        lasting=ShellSpec(script=("sleep 60",)),
        stubborn=ShellSpec(script=("trap '' TERM", "echo ready", "while :; do sleep 1; done")),
        refused=ShellSpec(script=("echo \0",)),
        big=ShellSpec(script=(f"head -c {BIG_LINES * 65536} /dev/zero",)),
        big_bytes=BIG_LINES * 65536,
    )


def _http(executor: Executor, server: TestServer) -> Specimen:
    def get(path: str) -> HttpSpec:
        return HttpSpec(method="HTTP_GET", url=str(server.make_url(path)))

    return Specimen(
        executor=executor,
        success=get("/status/200"),
        success_code=200,
        failure=get("/status/503"),
        failure_code=503,
        talking=get("/status/204"),
        said=b"204 No Content",
        said_on=Stream.SYSTEM,
        lasting=get("/slow"),
        stubborn=get("/slow"),
        refused=HttpSpec(method="HTTP_GET", url="nowhere"),
    )


def _python(executor: Executor, variant: str) -> Specimen:
    suffix = "" if variant == "async" else "_sync"

    def call(name: str, *args: object) -> PythonSpec:
        return PythonSpec(function=f"sample_functions:{name}", args=args, in_process_pool=variant == "pool")

    return Specimen(
        executor=executor,
        success=call(f"succeed{suffix}"),
        failure=call(f"leave{suffix}", 3),
        talking=call(f"talk{suffix}", "hello"),
        said=b"hello\n",
        lasting=call(f"last{suffix}"),
        stubborn=call("last_sync" if suffix else "ignore_cancel"),
        refused=call("no_such_function"),
        big=call(f"talk_big{suffix}", BIG_LINES),
        big_bytes=BIG_LINES * 65536,
    )


@pytest.fixture
def begin(specimen: Specimen, tmp_path: Path) -> Callable[..., Awaitable[Run]]:
    """Starts an attempt of its own number with a sink of its own."""
    count = 0

    async def start(spec: Spec, sink: CollectingSink | None = None, guard: RecordingGuard | None = None) -> Run:
        nonlocal count
        count += 1
        attempt = make_attempt(spec, tmp_path / str(count) / "work", number=count, guard=guard)
        return await specimen.executor.start(attempt, sink or CollectingSink())

    return start
