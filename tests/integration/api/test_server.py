"""The server itself: routes, definitions, health, and whom it does not answer."""

import asyncio
import gzip
import json
from urllib.parse import urlsplit

import pytest

from formicary.errors import InvalidInputError
from formicary.queen.api.server import ApiServer
from formicary.testing.front import TWO_TASKS, Api, QueenFront

DEFINITIONS = "/api/v1/definitions"


async def test_an_unknown_route_or_method_is_a_problem_document(api: Api) -> None:
    assert (await api.call("GET", "/"))[0] == 404
    assert (await api.call("GET", "/api/v1/jobs/a/b/c/d/e"))[0] == 404
    assert (await api.call("DELETE", "/api/v1/jobs"))[0] == 405
    assert (await api.call("PUT", "/api/v1/definitions"))[0] == 405


async def test_a_changed_definition_makes_a_version_and_an_unchanged_one_does_not(api: Api) -> None:
    statuses = []
    for text in (TWO_TASKS, TWO_TASKS, TWO_TASKS + "# changed\n"):
        status, document = await api.call("POST", DEFINITIONS, data=text.encode())
        statuses.append((status, document["version"]))

    assert statuses == [(201, 1), (200, 1), (201, 2)]
    _, newest = await api.call("GET", f"{DEFINITIONS}/two")
    _, versions = await api.call("GET", f"{DEFINITIONS}/two/versions")
    _, listed = await api.call("GET", DEFINITIONS)
    assert newest["source"] == TWO_TASKS + "# changed\n"
    assert [version["version"] for version in versions["items"]] == [2, 1]
    assert [(item["job_type"], item["version"]) for item in listed["items"]] == [("two", 2)]


async def test_every_mistake_of_a_definition_is_listed_with_its_place(api: Api) -> None:
    text = b"job_type: x\nsurprise: 1\ntasks:\n  - {task_type: a, method: SHEL, script: [x]}\n"

    status, document = await api.call("POST", DEFINITIONS, data=text)

    assert status == 422
    assert len(document["errors"]) == 2
    assert all(error["line"] and error["column"] and error["message"] for error in document["errors"])


@pytest.mark.parametrize("body", [b"", b" \n"])
@pytest.mark.parametrize(("path", "example"), [("jobs", "job_type"), ("jobs/batch", "jobs")])
async def test_an_empty_body_is_told_with_what_would_be_one(api: Api, path: str, example: str, body: bytes) -> None:
    status, document = await api.call("POST", f"/api/v1/{path}", data=body)

    assert (status, document["code"]) == (400, "ERR_JSON")
    assert f'the body is empty; send JSON, such as {{"{example}":' in document["detail"]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", 400, "ERR_HTTP", id="ssh"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "ERR_HTTP", id="tls"),
        pytest.param(b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400, "ERR_HTTP", id="header"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", 431, "ERR_TOO_LARGE", id="long header"),
        pytest.param(b"GET /?" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 431, "ERR_TOO_LARGE", id="long address"),
        pytest.param(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
            415,
            "ERR_BODY",
            id="packing",
        ),
    ],
)
async def test_what_is_no_request_is_answered_by_a_problem_document(
    front: QueenFront, sent: bytes, status: int, code: str
) -> None:
    address = urlsplit(front.server.address)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(sent)
    async with asyncio.timeout(40):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    document = json.loads(body)
    assert head.split()[1] == str(status).encode()
    assert b"application/problem+json" in head
    assert (document["status"], document["code"]) == (status, code)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"a: [", b"- 1", b"a: \x00", b"&a [*a]"])
async def test_what_is_no_definition_is_refused(api: Api, body: bytes) -> None:
    assert (await api.call("POST", DEFINITIONS, data=body))[0] == 422


async def test_a_document_of_ten_megabytes_is_too_large(api: Api) -> None:
    assert (await api.call("POST", DEFINITIONS, data=b"#" * 10_000_000))[0] == 413


async def test_health_and_metrics_answer(api: Api) -> None:
    assert (await api.call("GET", "/health/live"))[1] == {"status": "live"}
    assert (await api.call("GET", "/health/ready"))[1] == {"status": "ready"}
    async with api.session.get("/metrics") as response:
        assert "formicary_jobs_submitted_total" in await response.text()


@pytest.mark.parametrize(
    ("name", "value"),
    [("Origin", "https://example.org"), ("Origin", "null"), ("Host", "rebound.example.org:7777"), ("Host", "[")],
)
async def test_pages_of_other_sites_are_not_answered(api: Api, name: str, value: str) -> None:
    assert (await api.call("GET", "/api/v1/jobs", headers={name: value}))[0] == 403


async def test_pages_of_this_machine_are_answered(api: Api) -> None:
    headers = {"Origin": "http://localhost:3000", "Host": "localhost:7777"}
    assert (await api.call("GET", "/api/v1/jobs", headers=headers))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
async def test_the_server_listens_on_loopback_only(front: QueenFront, host: str) -> None:
    with pytest.raises(InvalidInputError, match=r"FORMICARY_LISTEN.*loopback"):
        ApiServer(front.manager, (host, 0))


async def test_an_address_that_is_taken_is_named(front: QueenFront) -> None:
    port = int(front.server.address.rpartition(":")[2])
    other = ApiServer(front.manager, ("127.0.0.1", port))

    with pytest.raises(InvalidInputError, match=f"FORMICARY_LISTEN.*{port}"):
        await other.start()


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", b"no gzip", (400, "ERR_BODY")),
        ("deflate", b"no deflate", (400, "ERR_BODY")),
        ("gzip", gzip.compress(b'{"job_type": "none"}'), (404, "ERR_NOT_FOUND")),
        ("gzip", gzip.compress(b"x" * 100_000_000), (413, "ERR_TOO_LARGE")),
    ],
    ids=["no gzip", "no deflate", "packed", "a bomb"],
)
async def test_a_packed_body_is_unpacked_within_the_limit_or_refused(
    api: Api, encoding: str, body: bytes, expected: tuple[int, str]
) -> None:
    status, document = await api.call("POST", "/api/v1/jobs", data=body, headers={"Content-Encoding": encoding})

    assert (status, document["code"]) == expected
