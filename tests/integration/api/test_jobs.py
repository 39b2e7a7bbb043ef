"""Looking at jobs and steering them."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from formicary.artifacts.blobs import new_key
from formicary.bus import Outgoing
from formicary.events import topics
from formicary.events.logs import Line, LogChunk
from formicary.ids import AntId, JobId, shard_of
from formicary.model.holders import Holder
from formicary.model.jobs import AntView
from formicary.testing.front import SHARDS, TWO_TASKS, Api, QueenFront

JOBS = "/api/v1/jobs"
NO_JOB = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(autouse=True)
async def _applied(api: Api) -> None:
    await api.apply(TWO_TASKS)


async def show(api: Api, job_id: str, query: str = "") -> dict[str, Any]:
    status, document = await api.call("GET", f"{JOBS}/{job_id}{query}")
    assert status == 200
    return dict(document)


async def test_an_ended_job_shows_what_ran_and_the_rest_as_skipped(api: Api, front: QueenFront) -> None:
    job = await api.submit()
    await front.add_task(job["id"], 0, "COMPLETED", '[{"name": "a.csv", "sha256": "00", "size_bytes": 1}]')
    await front.end_job(job["id"], "COMPLETED")

    first, second = (await show(api, job["id"]))["tasks"]

    assert (first["state"], first["attempt"], first["ant_id"], first["exit_code"]) == ("COMPLETED", 1, "ant-1", 0)
    assert first["outputs"] == {"row_count": 3}
    ref = {
        "name": "a.csv",
        "sha256": "00",
        "size_bytes": 1,
        "folder": None,
        "is_executable": False,
        "expires_at": None,
        "is_expired": False,
    }
    assert first["artifacts"] == [ref]
    assert (second["state"], second["attempt"]) == ("SKIPPED", 0)


async def test_an_unknown_or_malformed_id_is_not_found(api: Api) -> None:
    for job_id in (NO_JOB, "x", "%00", "..", "1' OR '1'='1", "ü" * 300):
        for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/restart")):
            assert (await api.call(method, f"{JOBS}/{job_id}{path}"))[0] == 404


async def test_a_wait_answers_as_soon_as_the_job_has_ended(api: Api, front: QueenFront) -> None:
    job = await api.submit()
    waiting = asyncio.create_task(show(api, job["id"], "?wait_s=60"))
    await show(api, job["id"])

    await front.end_job(job["id"], "COMPLETED")

    async with asyncio.timeout(40):
        assert (await waiting)["state"] == "COMPLETED"


async def test_a_wait_sees_the_end_that_another_queen_wrote(api: Api, front: QueenFront) -> None:
    job = await api.submit()
    waiting = asyncio.create_task(show(api, job["id"], "?wait_s=60"))

    await front.execute("UPDATE jobs SET state = 'FAILED' WHERE id = $1::uuid", job["id"])

    async with asyncio.timeout(40):
        assert (await waiting)["state"] == "FAILED"


async def test_a_wait_that_is_over_shows_the_job_as_it_is(api: Api) -> None:
    job = await api.submit()
    assert (await show(api, job["id"], "?wait_s=0.01"))["state"] == "PENDING"


async def test_stopping_the_server_ends_waits_and_streams(api: Api, front: QueenFront) -> None:
    job = await api.submit()
    waiting = asyncio.create_task(show(api, job["id"], "?wait_s=300"))
    response = await api.session.get(f"{JOBS}/{job['id']}/logs?follow=1")
    await show(api, job["id"])

    async with asyncio.timeout(40):
        await front.server.stop()
        assert (await waiting)["state"] == "PENDING"
        assert await response.read() == b""


async def test_pages_follow_one_another_newest_first(api: Api) -> None:
    ids = [(await api.submit())["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while True:
        _, page = await api.call("GET", f"{JOBS}?limit=2&job_type=two&state=pending{cursor}")
        assert all("tasks" not in job for job in page["items"])
        seen += [job["id"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert seen == ids[::-1]
    assert (await api.call("GET", f"{JOBS}?state=FAILED"))[1] == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=x", "limit=1e9", "limit=1.5", "limit=nan", "state=DONE", "cursor=%00", "cursor=zz", "order=asc"],
)
async def test_a_query_that_is_wrong_is_refused(api: Api, query: str) -> None:
    assert (await api.call("GET", f"{JOBS}?{query}"))[0] == 422


async def test_text_that_no_database_holds_finds_nothing(api: Api) -> None:
    for path in (f"{JOBS}?job_type=%00", f"{JOBS}?job_type=%ED%A0%80", "/api/v1/definitions?cursor=%00"):
        status, document = await api.call("GET", path)
        assert status == 422 or document["items"] == []
    for name in ("%00", "%ED%A0%80", "nothing"):
        assert (await api.call("GET", f"/api/v1/definitions/{name}"))[0] in (404, 422)
        assert (await api.call("GET", f"/api/v1/definitions/{name}/versions"))[0] in (404, 422)


async def test_an_unclaimed_job_is_paused_resumed_and_cancelled_at_once(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    states = []
    for verb in ("pause", "resume", "cancel"):
        status, document = await api.call("POST", f"{JOBS}/{job_id}/{verb}")
        assert status == 202
        states.append(document["state"])

    assert states == ["PAUSED", "PENDING", "CANCELLED"]
    assert front.wake.shards == []
    assert (await show(api, job_id))["tasks"][0]["state"] == "SKIPPED"


async def test_a_command_to_a_running_job_is_a_row_and_a_wake_up_for_its_owner(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    await front.start_job(job_id)

    status, _ = await api.call("POST", f"{JOBS}/{job_id}/cancel")

    shard = shard_of(JobId(job_id), SHARDS)
    assert status == 202
    assert front.wake.shards == [shard]
    async with front.database.connection() as connection:
        row = await connection.fetchrow("SELECT job_id::text, shard, kind FROM job_commands")
        assert row is not None
        assert tuple(row) == (job_id, shard, "cancel")


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        ("COMPLETED", "cancel"),
        ("FAILED", "pause"),
        ("CANCELLED", "resume"),
        ("COMPLETED", "restart"),
        ("EXECUTING", "resume"),
        ("EXECUTING", "restart"),
        ("PAUSED", "pause"),
    ],
)
async def test_a_command_that_the_state_forbids_is_a_conflict(
    api: Api, front: QueenFront, state: str, verb: str
) -> None:
    job_id = (await api.submit())["id"]
    await front.start_job(job_id)
    await front.execute("UPDATE jobs SET state = $2 WHERE id = $1::uuid", job_id, state)

    status, document = await api.call("POST", f"{JOBS}/{job_id}/{verb}")

    assert (status, document["code"]) == (409, "ERR_CONFLICT")
    assert job_id in document["detail"]


async def test_a_failed_job_is_restarted_from_a_task_that_it_has(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    await front.start_job(job_id)
    await front.end_job(job_id, "FAILED")

    path = f"{JOBS}/{job_id}/restart"
    assert (await api.call("POST", path, json={"mode": "some"}))[0] == 422
    assert (await api.call("POST", path, json={"from_task": "none"}))[0] == 422
    assert (await api.call("POST", path, data=b"{"))[0] == 400
    async with asyncio.TaskGroup() as group:
        group.create_task(deal_with_command(front, refusal=None))
        assert (await api.call("POST", path, json={"from_task": "second"}))[0] == 202


async def test_a_restart_that_its_owner_refuses_is_a_conflict(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    await front.start_job(job_id)
    await front.end_job(job_id, "FAILED")

    async with asyncio.TaskGroup() as group:
        group.create_task(deal_with_command(front, refusal="it is too late"))
        status, document = await api.call("POST", f"{JOBS}/{job_id}/restart")

    assert (status, document["detail"]) == (409, f"cannot restart job {job_id}: it is too late")


async def deal_with_command(front: QueenFront, refusal: str | None) -> None:
    """Does what an owner does once there is a command."""
    while not front.wake.shards:  # noqa: ASYNC110 - the recording double has no signal
        await asyncio.sleep(0)
    await front.execute("UPDATE job_commands SET done_at = now(), refusal = $1", refusal)


def chunk(job_id: str, task_no: int, *lines: str, first: int = 1) -> Outgoing:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    numbered = tuple(Line(first + number, "stdout", at, text) for number, text in enumerate(lines))
    event = LogChunk(job_id=JobId(job_id), task_no=task_no, attempt=1, lines=numbered)
    return Outgoing(topics.LOGS, f"{job_id}/{task_no}/1", event)


async def read_log(api: Api, path: str) -> list[dict[str, Any]]:
    async with api.session.get(path) as response:
        assert response.status == 200
        return [json.loads(line) async for line in response.content]


async def test_output_is_stored_once_and_read_by_task(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    await front.bus.publish([chunk(job_id, 0, "a", "b"), chunk(job_id, 1, "c"), chunk(job_id, 0, "a", "b")])
    await front.end_job(job_id, "COMPLETED")
    everything = await read_log(api, f"{JOBS}/{job_id}/logs?follow=1")

    assert sorted(line["text"] for line in everything) == ["a", "b", "c"]
    (line,) = await read_log(api, f"{JOBS}/{job_id}/logs?task_type=second")
    assert line.pop("arrival") > 0
    assert [line] == [
        {
            "task_type": "second",
            "attempt": 1,
            "seq": 1,
            "stream": "stdout",
            "at": "2030-01-01T00:00:00.000000Z",
            "text": "c",
        }
    ]
    assert await read_log(api, f"{JOBS}/{job_id}/logs?attempt=2") == []
    assert (await api.call("GET", f"{JOBS}/{job_id}/logs?task_type=none"))[0] == 404
    assert (await api.call("GET", f"{JOBS}/{job_id}/logs?attempt=0"))[0] == 422


async def test_a_follower_gets_lines_as_they_come_and_ends_after_the_last(api: Api, front: QueenFront) -> None:
    job_id = (await api.submit())["id"]
    await front.start_job(job_id)
    async with asyncio.timeout(40), api.session.get(f"{JOBS}/{job_id}/logs?follow=1") as response:
        await front.bus.publish([chunk(job_id, 0, "one")])
        first = json.loads(await response.content.readline())
        await front.bus.publish([chunk(job_id, 0, *map(str, range(3000)), first=2)])
        await front.end_job(job_id, "COMPLETED")
        rest = [json.loads(line)["text"] async for line in response.content]

    assert first["text"] == "one"
    assert rest == [str(number) for number in range(3000)]


async def test_an_artifact_is_sent_whole(api: Api, front: QueenFront, tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    job_id = await put_artifact(api, front, tmp_path, content, hashlib.sha256(content).hexdigest())

    async with api.session.get(f"{JOBS}/{job_id}/artifacts/first/result/a%20b.csv") as response:
        assert response.status == 200
        assert await response.read() == content
    for path in ("first/none", "second/result/a%20b.csv", "none/x", "none/x?redirect=1"):
        assert (await api.call("GET", f"{JOBS}/{job_id}/artifacts/{path}"))[0] == 404


async def test_a_store_without_urls_sends_the_bytes_whoever_asks_for_a_redirect(
    api: Api, front: QueenFront, tmp_path: Path
) -> None:
    job_id = await put_artifact(api, front, tmp_path, b"content", hashlib.sha256(b"content").hexdigest())
    path = f"{JOBS}/{job_id}/artifacts/first/result/a%20b.csv"

    async with api.session.get(path, params={"redirect": "1"}, allow_redirects=False) as response:
        assert (response.status, await response.read()) == (200, b"content")
    for query in ("redirect=perhaps", "redirected=1"):
        assert (await api.call("GET", f"{path}?{query}"))[0] == 422


async def test_an_artifact_that_was_changed_in_the_store_is_cut_short(
    api: Api, front: QueenFront, tmp_path: Path
) -> None:
    job_id = await put_artifact(api, front, tmp_path, b"x" * 3_000_000, hashlib.sha256(b"other").hexdigest())

    with pytest.raises(aiohttp.ClientError):
        async with api.session.get(f"{JOBS}/{job_id}/artifacts/first/result/a%20b.csv") as response:
            await response.read()


async def put_artifact(api: Api, front: QueenFront, folder: Path, content: bytes, sha256: str) -> str:
    job_id = str((await api.submit())["id"])
    await front.start_job(job_id)
    source = folder / "source"
    source.write_bytes(content)
    await front.artifacts.put(new_key(sha256, Holder(job_id, 0, 1)), source)
    ref = {"name": "result/a b.csv", "sha256": sha256, "size_bytes": len(content)}
    await front.add_task(job_id, 0, "COMPLETED", json.dumps([ref]))
    return job_id


async def test_ants_are_listed(api: Api, front: QueenFront) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    front.ants.listed = [
        AntView(
            id=AntId("a"),
            incarnation="a@1",
            methods=("SHELL",),
            tags=("gpu",),
            slots=4,
            running=1,
            last_heartbeat_at=at,
        )
    ]

    _, document = await api.call("GET", "/api/v1/ants")

    (ant,) = document["items"]
    assert (ant["id"], ant["slots"], ant["running"]) == ("a", 4, 1)
    assert ant["last_heartbeat_at"] == "2030-01-01T00:00:00.000000Z"
