"""What only MESSAGING promises: what is sent, whose reply counts, and what becomes of all others."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from executors.base import Outcome, Reason, Run, Stream
from executors.errors import ExecutorError, ExecutorLostError, SpecRefusedError
from executors.messaging import MessagingExecutor
from executors.options import ExecutorOptions
from executors.specs import MessagingSpec
from executors.testing import CollectingSink, make_attempt
from tests.conformance.executors.services import REPLIES, Service

QUIET = MessagingSpec(topic="quiet", body={"n": [1, None]})

Begin = Callable[..., Awaitable[Run]]


def ignored(reason: str) -> float:
    return REGISTRY.get_sample_value("formicary_replies_ignored_total", {"reason": reason}) or 0.0


@pytest.fixture
async def executor(service: Service) -> AsyncIterator[MessagingExecutor]:
    executor = MessagingExecutor(ExecutorOptions(exchange=service.exchange))
    await executor.check()
    yield executor
    await executor.close()


@pytest.fixture
def begin(executor: MessagingExecutor, tmp_path: Path) -> Begin:
    async def start(spec: MessagingSpec = QUIET, *, number: int = 1, sink: CollectingSink | None = None) -> Run:
        return await executor.start(make_attempt(spec, tmp_path, number=number), sink or CollectingSink())

    return start


async def end_of(executor: MessagingExecutor, run: Run) -> Outcome:
    async with asyncio.timeout(40):
        outcome = await executor.wait(run)
    await executor.cleanup(run)
    return outcome


@pytest.fixture
def caught_up(executor: MessagingExecutor, service: Service, begin: Begin) -> Callable[[], Awaitable[None]]:
    """Waits until the executor has read every reply so far: that of a further attempt comes after them."""

    async def wait() -> None:
        run = await begin(MessagingSpec(topic="after"), number=2)
        await service.reply(json.loads((await service.request_on("after")).body), status="COMPLETED")
        assert (await end_of(executor, run)).is_success

    return wait


async def test_a_service_gets_the_whole_request_and_its_word_is_the_outcome(
    executor: MessagingExecutor, service: Service, begin: Begin
) -> None:
    sink = CollectingSink()
    run = await begin(msgspec.structs.replace(QUIET, key="k", headers={"a": "b"}), sink=sink)
    message = await service.request_on("quiet")
    request = json.loads(message.body)
    await service.reply(request, status="COMPLETED", outputs={"found": 2}, exit_code=7)

    assert await end_of(executor, run) == Outcome(Reason.EXITED, 7, True, {"found": 2})
    assert datetime.fromisoformat(request.pop("sent_at")).tzinfo is not None
    assert request == {
        "correlation_id": "job-1/task/1",
        "reply_to": REPLIES,
        "job_id": "job-1",
        "task_type": "task",
        "attempt": 1,
        "timeout_s": 60.0,
        "body": {"n": [1, None]},
    }
    assert (message.key, dict(message.headers)) == ("k", {"a": "b"})
    assert b"request job-1/task/1 is on quiet" in sink.text(Stream.SYSTEM)


async def test_requests_of_a_job_share_a_key(service: Service, begin: Begin) -> None:
    await begin()
    assert (await service.request_on("quiet")).key == "job-1"


async def test_a_reply_that_comes_twice_counts_once(
    executor: MessagingExecutor, service: Service, begin: Begin, caught_up: Callable[[], Awaitable[None]]
) -> None:
    before = ignored("late")
    run = await begin()
    request = json.loads((await service.request_on("quiet")).body)

    await service.reply(request, status="COMPLETED")
    await service.reply(request, status="FAILED")

    assert (await end_of(executor, run)).is_success
    await caught_up()
    assert ignored("late") == before + 1


async def test_a_reply_that_comes_too_late_is_dropped(
    executor: MessagingExecutor, service: Service, begin: Begin, caught_up: Callable[[], Awaitable[None]]
) -> None:
    before = ignored("late")
    run = await begin()
    request = json.loads((await service.request_on("quiet")).body)

    await executor.stop(run, 10.0, Reason.TIMED_OUT)
    await service.reply(request, status="COMPLETED")

    await caught_up()
    assert ignored("late") == before + 1
    outcome = await end_of(executor, run)
    assert outcome.reason is Reason.TIMED_OUT
    assert outcome.message == "no reply came in time; is there a service that consumes quiet?"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"correlation_id": "job-9/task/1", "status": "COMPLETED"}', "unknown"),
        (b'{"status": "COMPLETED"}', "unreadable"),
        (b'{"correlation_id": 1}', "unreadable"),
        (b"\xff", "unreadable"),
        (b"[" * 100_000, "unreadable"),
    ],
)
async def test_what_is_nobodys_reply_is_counted_and_harms_nothing(
    executor: MessagingExecutor, service: Service, begin: Begin, body: bytes, reason: str
) -> None:
    before = ignored(reason)
    run = await begin()
    request = json.loads((await service.request_on("quiet")).body)

    await service.say(REPLIES, body)
    await service.reply(request, status="COMPLETED")

    assert (await end_of(executor, run)).is_success
    assert ignored(reason) == before + 1


@pytest.mark.parametrize(
    "verdict",
    [{}, {"status": "DONE"}, {"status": "FAILED", "exit_code": 0}, {"status": "COMPLETED", "output": {}}],
    ids=json.dumps,
)
async def test_a_reply_that_makes_no_sense_fails_its_attempt_and_says_why(
    executor: MessagingExecutor, service: Service, begin: Begin, verdict: dict[str, Any]
) -> None:
    run = await begin()
    await service.reply(json.loads((await service.request_on("quiet")).body), **verdict)

    with pytest.raises(ExecutorLostError, match=r"the reply cannot be read: .*docs/executors/messaging\.md"):
        await end_of(executor, run)


async def test_ants_that_share_a_reply_topic_get_their_own_replies(
    executor: MessagingExecutor, service: Service, begin: Begin, tmp_path: Path
) -> None:
    other = MessagingExecutor(ExecutorOptions(exchange=service.exchange))
    spec = MessagingSpec(topic="shared", reply_topic="answers")
    first = await begin(spec)
    second = await other.start(make_attempt(spec, tmp_path, job_id="job-2"), CollectingSink())

    async with asyncio.timeout(40):
        while len(requests := await service.requests_on("shared")) < 2:
            pass
    assert {request["reply_to"] for request in requests} == {"answers"}
    for request in requests:
        await service.reply(request, status="COMPLETED", outputs={"job": request["job_id"]})

    assert (await end_of(executor, first)).outputs == {"job": "job-1"}
    assert (await end_of(other, second)).outputs == {"job": "job-2"}
    await other.close()


@pytest.mark.parametrize("topic", ["formicary.results.0", "", "a b", "../x", "-x", "x" * 201])
@pytest.mark.parametrize("key", ["topic", "reply_topic"])
async def test_a_topic_of_the_colony_or_a_bad_name_is_refused(begin: Begin, key: str, topic: str) -> None:
    if (key, topic) == ("reply_topic", ""):
        return  # says that the ant's own is meant
    with pytest.raises(SpecRefusedError, match=f"^{key}: "):
        await begin(msgspec.structs.replace(QUIET, **{key: topic}))


async def test_a_request_that_no_broker_carries_is_refused(executor: MessagingExecutor, begin: Begin) -> None:
    run = await begin(MessagingSpec(topic="quiet", body="x" * 20_000_000))
    with pytest.raises(SpecRefusedError, match="exceeds the limit"):
        await end_of(executor, run)


async def test_without_a_broker_it_is_not_offered() -> None:
    with pytest.raises(ExecutorError, match="message broker"):
        await MessagingExecutor().check()
