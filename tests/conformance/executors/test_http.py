"""What requests carry and what becomes of answers, against a real server."""

import asyncio
import datetime
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from executors.base import Executor, Outcome, Stream
from executors.errors import ExecutorLostError, SpecRefusedError
from executors.http import HttpExecutor
from executors.options import ExecutorOptions
from executors.specs import HttpSpec
from executors.testing import CollectingSink, make_attempt

Call = Callable[..., Awaitable[tuple[Outcome, CollectingSink]]]


async def call_with(executor: Executor, spec: HttpSpec, folder: Path) -> tuple[Outcome, CollectingSink]:
    sink = CollectingSink()
    run = await executor.start(make_attempt(spec, folder / "work"), sink)
    try:
        async with asyncio.timeout(40):
            return await executor.wait(run), sink
    finally:
        await executor.cleanup(run)


@pytest.fixture
async def call(
    make_executor: Callable[[str], Awaitable[Executor]], web_server: TestServer, tmp_path: Path
) -> AsyncIterator[Call]:
    executor = await make_executor("HTTP_GET")

    async def send(path: str, method: str = "HTTP_GET", **keys: Any) -> tuple[Outcome, CollectingSink]:
        url = path if "://" in path else str(web_server.make_url(path))
        return await call_with(executor, HttpSpec(method=method, url=url, **keys), tmp_path)

    yield send
    assert not (tmp_path / "work").exists(), "a request needs no working directory"


@pytest.mark.parametrize(("status", "is_success"), [(200, True), (204, True), (304, True), (400, False), (503, False)])
async def test_the_status_is_the_exit_code_and_below_400_is_success(call: Call, status: int, is_success: bool) -> None:
    outcome, _ = await call(f"/status/{status}")

    assert (outcome.exit_code, outcome.is_success, outcome.outputs["status"]) == (status, is_success, status)


@pytest.mark.parametrize(
    ("method", "verb"),
    [
        ("HTTP_GET", "GET"),
        ("HTTP_POST_JSON", "POST"),
        ("HTTP_PUT_JSON", "PUT"),
        ("HTTP_PATCH_JSON", "PATCH"),
        ("HTTP_DELETE", "DELETE"),
    ],
)
async def test_only_the_declared_body_is_sent_as_json(call: Call, method: str, verb: str) -> None:
    outcome, _ = await call("/echo", method, body={"rows": [1, None]})

    seen = outcome.outputs["body"]
    assert (seen["verb"], seen["body"]) == (verb, '{"rows":[1,null]}')
    assert seen["headers"]["content-type"] == "application/json"


async def test_nothing_is_sent_where_nothing_is_declared(call: Call) -> None:
    outcome, _ = await call("/echo", "HTTP_POST_JSON")

    assert outcome.outputs["body"]["body"] == ""
    assert not {"cookie", "authorization"} & set(outcome.outputs["body"]["headers"])


@pytest.mark.parametrize("method", ["HTTP_POST_FORM", "HTTP_PUT_FORM"])
async def test_a_form_is_url_encoded(call: Call, method: str) -> None:
    outcome, _ = await call("/echo", method, form={"name": "a b&c", "empty": ""})

    assert outcome.outputs["body"]["body"] == "name=a+b%26c&empty="
    assert outcome.outputs["body"]["headers"]["content-type"] == "application/x-www-form-urlencoded"


async def test_query_and_headers_are_added(call: Call) -> None:
    outcome, _ = await call("/echo?first=1", query={"q": "a&b ü"}, headers={"X-Key": "value", "Accept": "a/b"})

    seen = outcome.outputs["body"]
    assert seen["query"] == {"first": "1", "q": "a&b ü"}
    assert (seen["headers"]["x-key"], seen["headers"]["accept"]) == ("value", "a/b")


async def test_headers_of_the_answer_are_an_output_in_lower_case(call: Call) -> None:
    outcome, _ = await call("/echo")

    assert outcome.outputs["headers"]["x-twice"] == "one"


async def test_no_cookie_passes_from_one_task_to_another(call: Call) -> None:
    await call("/echo")
    outcome, _ = await call("/echo")

    assert "cookie" not in outcome.outputs["body"]["headers"]


async def test_a_problem_document_is_json_too(call: Call) -> None:
    outcome, _ = await call("/body/problem")

    assert (outcome.exit_code, outcome.outputs["body"]) == (409, {"title": "no"})


async def test_text_is_decoded_by_its_charset(call: Call) -> None:
    outcome, _ = await call("/body/latin")

    assert outcome.outputs["body"] == "café"


async def test_an_empty_json_body_is_null(call: Call) -> None:
    assert (await call("/body/empty-json"))[0].outputs["body"] is None


async def test_a_body_that_only_calls_itself_json_is_text_and_the_log_says_so(call: Call) -> None:
    outcome, sink = await call("/body/no-json")

    assert outcome.outputs["body"] == "<html>"
    assert b"calls itself JSON" in sink.text(Stream.SYSTEM)


@pytest.mark.parametrize("kind", ["big-text", "bomb"])
async def test_a_text_body_is_cut(call: Call, kind: str) -> None:
    outcome, _ = await call(f"/body/{kind}")

    assert outcome.is_success
    assert len(outcome.outputs["body"]) == 64 * 1024


async def test_json_beyond_the_limit_is_no_output_and_the_message_says_so(call: Call) -> None:
    outcome, sink = await call("/body/big-json")

    assert (outcome.exit_code, outcome.is_success) == (200, True)
    assert "body" not in outcome.outputs
    assert "larger than 1048576 bytes" in (outcome.message or "")
    assert b"larger than" in sink.text(Stream.SYSTEM)


async def test_redirects_are_followed_up_to_the_limit(call: Call) -> None:
    near, _ = await call("/redirect/9")
    far, _ = await call("/redirect/20")

    assert (near.exit_code, near.is_success) == (200, True)
    assert (far.exit_code, far.is_success) == (302, False)
    assert "more than 10 redirects" in (far.message or "")


async def test_the_log_shows_request_and_status_without_the_password(call: Call, web_server: TestServer) -> None:
    _, sink = await call(f"http://user:secret@127.0.0.1:{web_server.port}/status/200")

    log = sink.text(Stream.SYSTEM)
    assert b"GET http://user:***@127.0.0.1" in log
    assert b"200 OK" in log
    assert b"secret" not in log


async def test_a_server_that_is_not_there_is_an_error_that_hides_the_password(call: Call) -> None:
    with pytest.raises(ExecutorLostError, match="cannot connect") as caught:
        await call("http://user:secret@127.0.0.1:1/")

    assert "secret" not in str(caught.value)


async def test_a_host_without_address_is_an_error(call: Call) -> None:
    with pytest.raises(ExecutorLostError, match=r"no-such-host\.invalid"):
        await call("http://no-such-host.invalid/")


async def test_a_connection_that_breaks_leaves_the_fate_unknown(call: Call) -> None:
    with pytest.raises(ExecutorLostError, match="the connection broke"):
        await call("/break")


@pytest.mark.parametrize(
    ("method", "keys", "words"),
    [
        ("HTTP_GET", {"headers": {"A": "b\r\nC: d"}}, "line break"),
        ("HTTP_GET", {"headers": {"A b": "c"}}, "no name of a header"),
        ("HTTP_POST_JSON", {"form": {}}, "HTTP_POST_FORM"),
        ("HTTP_POST_FORM", {"body": 1}, "use `form`"),
        ("HTTP_DELETE", {"body": 1, "form": {}}, "a body or a form"),
        ("HTTP_TEAPOT", {}, "HTTP_GET"),
    ],
)
async def test_what_no_request_can_carry_is_refused(call: Call, method: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecRefusedError, match=words):
        await call("/echo", method, **keys)


@pytest.mark.parametrize("url", ["ftp://host/file", "http://", "http://host:nonsense/", "file:///etc/passwd"])
async def test_an_address_of_no_web_server_is_refused(call: Call, url: str) -> None:
    with pytest.raises(SpecRefusedError, match="url"):
        await call(url)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that signs itself; the file holds its key too."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", f"{file}.crt"]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
async def tls_server(certificate: Path) -> AsyncIterator[TestServer]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=datetime.date(2024, 2, 29).isoformat())

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    app = web.Application()
    app.router.add_get("/", answer)
    server = TestServer(app, scheme="https", host="localhost")
    await server.start_server(ssl=context)
    yield server
    await server.close()


async def test_a_certificate_that_nobody_vouches_for_is_refused(call: Call, tls_server: TestServer) -> None:
    with pytest.raises(ExecutorLostError, match="not trusted"):
        await call(f"https://localhost:{tls_server.port}/")


async def test_a_certificate_of_the_given_file_is_trusted(
    tls_server: TestServer, certificate: Path, tmp_path: Path
) -> None:
    executor = HttpExecutor(ExecutorOptions(http_ca_file=certificate))
    spec = HttpSpec(method="HTTP_GET", url=f"https://localhost:{tls_server.port}/")

    outcome, _ = await call_with(executor, spec, tmp_path)

    assert outcome.outputs["body"] == "2024-02-29"
    await executor.close()
