"""Submitting: what is accepted is committed, what is wrong is named."""

import asyncio
import json
from typing import Any

import pytest

from formicary.model.jobs import JobRequest
from formicary.queen.api.reading import MAX_BODY_BYTES
from formicary.queen.manager.submissions import Submitted
from formicary.testing.front import TWO_TASKS, Api, QueenFront

JOBS = "/api/v1/jobs"


@pytest.fixture(autouse=True)
async def _applied(api: Api) -> None:
    await api.apply(TWO_TASKS)


def paths(document: dict[str, Any]) -> set[str]:
    return {error["path"] for error in document["errors"]}


async def test_a_submitted_job_shows_every_task_pending_in_definition_order(api: Api, front: QueenFront) -> None:
    job = await api.submit(labels={"who": "me"}, priority=7)

    assert (job["state"], job["version"], job["priority"], job["attempt"]) == ("PENDING", 1, 7, 1)
    assert job["labels"] == {"team": "data", "who": "me"}
    assert job["params"] == {"region": "eu"}
    assert [(task["task_type"], task["state"], task["attempt"]) for task in job["tasks"]] == [
        ("first", "PENDING", 0),
        ("second", "PENDING", 0),
    ]
    assert front.wake.submitted_count == 1
    assert (await api.call("GET", f"{JOBS}/{job['id']}"))[1] == job


async def test_times_have_microseconds_and_z_also_on_a_whole_second(api: Api) -> None:
    job = await api.submit(scheduled_at="2031-01-01T02:00:00+02:00")

    assert job["scheduled_at"] == "2031-01-01T00:00:00.000000Z"
    assert job["created_at"].endswith("Z")
    assert len(job["created_at"]) == len("2031-01-01T00:00:00.000000Z")


async def test_missing_params_are_listed(api: Api) -> None:
    status, document = await api.call("POST", JOBS, json={"job_type": "two", "params": {}})

    assert status == 422
    assert paths(document) == {"params.region"}


async def test_an_unknown_job_type_or_version_is_not_found(api: Api) -> None:
    for body in ({"job_type": "none"}, {"job_type": "two", "version": 9, "params": {"region": 1}}):
        assert (await api.call("POST", JOBS, json=body))[0] == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"job_type": "\xff"}', 400),
        (b'{"job_type": "\\ud800"}', 400),
        (b'{"job_type": "two", "params": {"a": ' + b"[" * 100_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"job_type": 3}', 422),
        (b'{"job_type": "two", "surprise": 1}', 422),
        (b'{"job_type": "two", "params": [1]}', 422),
        (b'{"job_type": "two", "priority": 99999999999}', 422),
        (b'{"job_type": "two", "priority": 1e400}', 422),
        (b'{"job_type": "two", "version": 0}', 422),
        (b'{"job_type": "two", "scheduled_at": "tomorrow"}', 422),
        (b'{"job_type": "two", "scheduled_at": "2030-01-01T00:00:00"}', 422),
        (b'{"job_type": "two", "scheduled_at": "0001-01-01T00:00:00+14:00"}', 422),
        (b'{"job_type": "two", "labels": {"a": 1}}', 422),
        (b'{"job_type": "two", "labels": {"a": "\\u0000"}}', 422),
        (b'{"job_type": "two", "labels": {"": "x"}}', 422),
        (b'{"job_type": "two", "labels": {"two words": "x"}}', 422),
        (b'{"job_type": "a\\u0000b"}', 422),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
async def test_garbage_is_answered_with_a_problem_document(api: Api, body: bytes, status: int) -> None:
    assert (await api.call("POST", JOBS, data=body))[0] == status


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"region": "a\0b"}, "params.region"),
        ({"region": {"deep": ["x", "\0"]}}, "params.region.deep[1]"),
        ({"region": 1, "k\0": 1}, "params.k\0"),
        ({"region": 2**64}, "params.region"),
        ({"region": "x" * 300_000}, "params.region"),
    ],
)
async def test_params_that_cannot_be_used_are_named(api: Api, params: dict[str, Any], path: str) -> None:
    status, document = await api.call("POST", JOBS, json={"job_type": "two", "params": params})

    assert status == 422
    assert paths(document) == {path}


async def test_the_same_key_and_body_give_the_first_job_and_another_body_is_refused(api: Api) -> None:
    body = {"job_type": "two", "params": {"region": "eu", "day": 1}}
    same = {"params": {"day": 1, "region": "eu"}, "job_type": "two"}
    headers = {"Idempotency-Key": "k-1"}

    first = await api.call("POST", JOBS, json=body, headers=headers)
    again = await api.call("POST", JOBS, json=same, headers=headers)
    other = await api.call("POST", JOBS, json={**body, "priority": 1}, headers=headers)

    assert first[0] == 201
    assert again == (200, first[1])
    assert other[0] == 422
    assert first[1]["id"] in other[1]["detail"]


async def test_an_unusable_key_is_refused(api: Api) -> None:
    status, _ = await api.call("POST", JOBS, json={"job_type": "two"}, headers={"Idempotency-Key": "k" * 256})
    assert status == 422


async def test_a_key_in_the_body_that_is_not_the_header_s_is_refused(api: Api) -> None:
    body = {"job_type": "two", "params": {"region": "eu"}, "idempotency_key": "k-2"}

    same = await api.call("POST", JOBS, json=body, headers={"Idempotency-Key": "k-2"})
    other = await api.call("POST", JOBS, json=body, headers={"Idempotency-Key": "k-3"})

    assert same[0] == 201
    assert other[0] == 422
    assert paths(other[1]) == {"idempotency_key"}


async def test_a_batch_answers_each_item_in_order_with_its_job_or_its_problem(api: Api) -> None:
    good = {"job_type": "two", "params": {"region": "eu"}, "idempotency_key": "b-1"}
    items = [good, {"job_type": "none"}, {"job_type": 1}, good, {"job_type": "two"}]

    status, document = await api.call("POST", f"{JOBS}/batch", json={"jobs": items})

    assert status == 200
    answers = document["items"]
    assert [answer.get("status", "job") for answer in answers] == ["job", 404, 422, "job", 422]
    assert answers[0]["id"] == answers[3]["id"]
    assert "tasks" not in answers[0]


async def test_a_body_that_is_no_batch_is_refused(api: Api) -> None:
    bodies: list[dict[str, Any]] = [{}, {"jobs": {}}, {"jobs": [], "x": 1}]
    for body in bodies:
        assert (await api.call("POST", f"{JOBS}/batch", json=body))[0] == 422


async def test_concurrent_submissions_share_commits(api: Api, front: QueenFront) -> None:
    before = await commits(front)

    await asyncio.gather(*[api.submit() for _ in range(200)])

    assert await commits(front) - before < 100


async def commits(front: QueenFront) -> int:
    async with front.database.connection() as connection:
        return int(await connection.fetchval("SELECT pg_current_xact_id()::text::bigint"))


async def test_a_version_saved_by_another_queen_is_used_at_once(api: Api, front: QueenFront) -> None:
    await api.submit()
    other = front.make_manager()
    await other.save_definition(TWO_TASKS.replace("second", "third"))

    job = await api.submit()

    assert job["version"] == 2
    assert [task["task_type"] for task in job["tasks"]] == ["first", "third"]


async def test_an_older_version_can_be_asked_for(api: Api) -> None:
    await api.apply(TWO_TASKS.replace("second", "third"))

    job = await api.submit(version=1)

    assert [task["task_type"] for task in job["tasks"]] == ["first", "second"]


async def test_a_dynamic_document_is_rendered_with_the_params_of_the_request(api: Api) -> None:
    await api.apply(
        "job_type: many\ndynamic_template_tasks: true\ntasks:\n"
        "{% for name in names %}\n"
        '  - {task_type: "{{ name }}", method: SHELL, script: ["true"]}\n'
        "{% endfor %}\n"
    )

    job = await api.submit("many", params={"names": ["a", "b", "c"]})
    status, document = await api.call("POST", JOBS, json={"job_type": "many", "params": {}})

    shown = (await api.call("GET", f"{JOBS}/{job['id']}"))[1]
    assert [task["task_type"] for task in shown["tasks"]] == ["a", "b", "c"]
    assert status == 422
    assert "names" in document["detail"]


async def test_a_big_batch_is_taken_in_one_call(front: QueenFront) -> None:
    requests = [JobRequest(job_type="two", params={"region": str(number)}) for number in range(3_000)]

    results = await front.manager.submit_batch(requests)

    assert all(isinstance(result, Submitted) for result in results)
    jobs, cursor = await front.manager.jobs(None, "two", 500, None)
    assert len(jobs) == 500
    assert cursor is not None


async def test_a_database_that_is_away_is_answered_503_with_retry_after(api: Api, front: QueenFront) -> None:
    await front.database.close()

    async with api.session.post(JOBS, data=json.dumps({"job_type": "two", "params": {"region": 1}})) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
    assert (await api.call("GET", "/health/ready"))[0] == 503
    assert (await api.call("GET", "/health/live"))[0] == 200


async def test_a_submission_can_wait_for_the_end_of_its_job(api: Api, front: QueenFront) -> None:
    body = {"job_type": "two", "params": {"region": "eu"}, "idempotency_key": "once"}
    waiting = asyncio.create_task(api.call("POST", f"{JOBS}?wait_s=60", json=body))
    async with asyncio.timeout(40):
        while not front.wake.submitted_count:  # noqa: ASYNC110 - the recording double has no signal
            await asyncio.sleep(0.01)
    _, page = await api.call("GET", JOBS)

    await front.end_job(page["items"][0]["id"], "COMPLETED")

    async with asyncio.timeout(40):
        status, job = await waiting
        again, same = await api.call("POST", f"{JOBS}?wait_s=60", json=body)
    assert (status, job["state"], job["id"]) == (201, "COMPLETED", page["items"][0]["id"])
    assert (again, same) == (200, job)


async def test_a_submission_whose_wait_is_over_shows_the_job_as_it_is(api: Api) -> None:
    status, job = await api.call("POST", f"{JOBS}?wait_s=0.01", json={"job_type": "two", "params": {"region": "eu"}})

    assert (status, job["state"]) == (201, "PENDING")


@pytest.mark.parametrize("query", ["wait_s=soon", "wait_s=-1", "wait_s=1e9", "wait=1"])
async def test_a_submission_with_a_wrong_query_is_refused_before_it_is_stored(api: Api, query: str) -> None:
    status, document = await api.call("POST", f"{JOBS}?{query}", json={"job_type": "two", "params": {"region": "eu"}})

    assert (status, len(document["errors"])) == (422, 1)
    assert (await api.call("GET", JOBS))[1]["items"] == []
