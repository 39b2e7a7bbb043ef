"""Commands of other services, as JSON on the bus: carried out once, answered, or buried with the reason."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from brokers.base import DEAD_SUFFIX, REASON_HEADER, START, Delivery, Message, Subscription
from formicary.clock import SystemClock
from formicary.errors import FormicaryError
from formicary.events import topics
from formicary.model.jobs import JobRequest, JobView
from formicary.queen.commands_desk import CommandsDesk
from formicary.queen.manager.manager import Manager
from formicary.queen.manager.submissions import Submitted
from formicary.testing.front import TWO_TASKS, QueenFront

REPLIES = "formicary.replies.shop"
SUBMIT: dict[str, Any] = {"type": "SubmitJob", "job_type": "two", "params": {"region": "eu"}}


class Shop:
    """A service that speaks to the bus, and the desk that serves it."""

    def __init__(self, front: QueenFront, manager: Manager | None = None) -> None:
        self.front = front
        self.desk = CommandsDesk(front.bus, manager or front.manager, SystemClock(), "life-1")
        self.subscription: Subscription

    async def open(self) -> None:
        self.subscription = await self.front.bus.subscribe_messages([topics.COMMANDS], topics.QUEENS, "test")

    async def send(self, *documents: object, headers: dict[str, str] | None = None) -> None:
        bodies = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in documents]
        await self.front.broker.publish([Message(topics.COMMANDS, "shop", body, headers or {}) for body in bodies])

    async def serve(self) -> int:
        return await self.desk.run_once(self.subscription, 5.0)

    async def answers(self) -> list[dict[str, Any]]:
        entries = await self.front.broker.read(REPLIES, START, 100, 0.0)
        return [json.loads(entry.message.body) for entry in entries]

    async def dead(self) -> list[Message]:
        entries = await self.front.broker.read(topics.COMMANDS + DEAD_SUFFIX, START, 100, 0.0)
        return [entry.message for entry in entries]

    async def jobs(self) -> Sequence[JobView]:
        return (await self.front.manager.jobs(None, None, 100, None))[0]

    async def backlog(self) -> int:
        return await self.front.broker.depth(topics.COMMANDS, topics.QUEENS)


class Forgetful(Subscription):
    """Takes deliveries like a queen that dies before it acknowledges them."""

    def __init__(self, inner: Subscription) -> None:
        self._inner = inner

    async def receive(self, max_count: int, timeout_s: float) -> list[Delivery]:
        return await self._inner.receive(max_count, timeout_s)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._inner.close()

    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        await self._inner.close()

    async def close(self) -> None:
        await self._inner.close()


@pytest.fixture
async def shop(front: QueenFront) -> AsyncIterator[Shop]:
    await front.manager.save_definition(TWO_TASKS)
    shop = Shop(front)
    await shop.open()
    yield shop
    await shop.subscription.close()


async def test_a_job_is_submitted_answered_and_acknowledged(shop: Shop) -> None:
    wanted = SUBMIT | {"priority": 7, "labels": {"a": "b"}, "reply_to": REPLIES, "correlation_id": "order 1"}
    await shop.send(wanted, headers={"traceparent": "00-1-2-01", "other": "x"})

    await shop.serve()

    (job,) = await shop.jobs()
    (answer,) = await shop.answers()
    assert (job.job_type, job.params, job.priority, job.labels["a"]) == ("two", {"region": "eu"}, 7, "b")
    assert (answer["type"], answer["command"], answer["job_id"]) == ("CommandAccepted", "SubmitJob", job.id)
    assert (answer["correlation_id"], answer["is_new"]) == ("order 1", True)
    (entry,) = await shop.front.broker.read(REPLIES, START, 10, 0.0)
    assert (entry.message.key, entry.message.headers) == ("shop", {"traceparent": "00-1-2-01"})
    assert await shop.backlog() == 0
    assert shop.front.wake.submitted_count == 1


async def test_without_a_reply_topic_nothing_is_answered(shop: Shop) -> None:
    await shop.send(SUBMIT, SUBMIT)

    assert await shop.serve() == 2

    assert len(await shop.jobs()) == 2
    assert await shop.answers() == []


async def test_a_key_makes_one_job_however_often_it_is_sent(shop: Shop) -> None:
    keyed = SUBMIT | {"idempotency_key": "order-1", "reply_to": REPLIES}
    await shop.send(keyed, keyed)
    await shop.serve()
    await shop.send(keyed)
    await shop.serve()

    (job,) = await shop.jobs()
    answers = await shop.answers()
    assert [answer["job_id"] for answer in answers] == [job.id] * 3
    assert [answer["is_new"] for answer in answers].count(True) == 1


async def test_a_key_with_another_body_is_refused(shop: Shop) -> None:
    keyed = SUBMIT | {"idempotency_key": "order-1", "reply_to": REPLIES}
    await shop.send(keyed, keyed | {"params": {"region": "us"}})

    await shop.serve()

    refusal = (await shop.answers())[1]
    assert (refusal["type"], refusal["code"]) == ("CommandRefused", "ERR_VALIDATION")
    assert refusal["errors"][0]["path"] == "idempotency_key"
    assert len(await shop.jobs()) == 1


@pytest.mark.parametrize("changes", [{}, {"idempotency_key": "mine"}])
async def test_a_message_that_comes_again_submits_one_job(shop: Shop, changes: dict[str, Any]) -> None:
    await shop.send(SUBMIT | {"reply_to": REPLIES} | changes)
    assert await shop.desk.run_once(Forgetful(shop.subscription), 5.0) == 1
    await shop.open()

    assert await shop.serve() == 1

    (job,) = await shop.jobs()
    assert [answer["job_id"] for answer in await shop.answers()] == [job.id] * 2
    assert await shop.backlog() == 0


async def test_message_ids_that_begin_anew_with_the_process_are_no_keys_of_the_next(shop: Shop) -> None:
    await shop.send(SUBMIT)
    await shop.serve()
    await shop.front.broker.delete_topic(topics.COMMANDS)
    shop.desk = CommandsDesk(shop.front.bus, shop.front.manager, SystemClock(), "life-2")
    await shop.send(SUBMIT)

    await shop.serve()

    assert len(await shop.jobs()) == 2


GARBAGE: dict[str, tuple[object, str]] = {
    "no JSON": (b"\xff{", "the body is no JSON"),
    "nothing": (b" \n", "the body is empty; send one JSON object"),
    "a list": ([1], "the body is no JSON object"),
    "nested": (b'{"type": "SubmitJob", "job_type": "two", "params": {"a": ' + b"[" * 100_000, "nested too deeply"),
    "no type": ({"job_type": "two"}, "type: is missing; use SubmitJob, CancelJob"),
    "unknown type": ({"type": "SubmitJobs"}, "type: 'SubmitJobs' is no command; did you mean \"SubmitJob\"?"),
    "type of another kind": ({"type": 7}, "type: '7' is no command"),
    "unknown field": (SUBMIT | {"prams": {}}, 'prams: is no field of this command; did you mean "params"?'),
    "missing field": ({"type": "SubmitJob"}, "missing required field `job_type`"),
    "wrong kind": (SUBMIT | {"params": []}, "params: Expected `object`, got `array`"),
    "unknown job type": (SUBMIT | {"job_type": "three"}, "ERR_NOT_FOUND: no job type 'three'"),
    "missing param": (SUBMIT | {"params": {}}, "params.region: missing"),
    "NUL": (SUBMIT | {"params": {"region": "a\0"}}, "params.region: holds a NUL character"),
    "bad key": (SUBMIT | {"idempotency_key": "a\nb"}, "idempotency_key: is no usable key"),
    "no job": ({"type": "CancelJob", "job_id": "x"}, "ERR_NOT_FOUND: no job 'x'"),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_what_can_never_be_right_is_buried_at_once_with_the_reason(shop: Shop, name: str) -> None:
    document, reason = GARBAGE[name]
    await shop.send(document, SUBMIT)

    assert await shop.serve() == 2

    (buried,) = await shop.dead()
    assert reason in buried.headers[REASON_HEADER]
    assert buried.body == (document if isinstance(document, bytes) else json.dumps(document).encode())
    assert len(await shop.jobs()) == 1
    assert await shop.backlog() == 0


@pytest.mark.parametrize("document", [SUBMIT | {"job_type": "three"}, SUBMIT | {"prams": {}}, {"type": "Submit"}])
async def test_a_refusal_is_answered(shop: Shop, document: dict[str, Any]) -> None:
    await shop.send(document | {"reply_to": REPLIES, "correlation_id": "c"})

    await shop.serve()

    (answer,) = await shop.answers()
    assert (answer["type"], answer["correlation_id"]) == ("CommandRefused", "c")
    assert answer["detail"]


@pytest.mark.parametrize(
    "topic", ["formicary.commands", "formicary.results.1", "a b", "", "x" * 201, "formicary.replies"]
)
async def test_an_answer_goes_to_no_topic_of_the_colony_itself(shop: Shop, topic: str) -> None:
    await shop.send(SUBMIT | {"reply_to": topic})

    assert await shop.serve() == 1

    (buried,) = await shop.dead()
    assert "reply_to" in buried.headers[REASON_HEADER]
    assert await shop.jobs() == []
    assert await shop.backlog() == 0


async def test_a_job_that_nobody_claimed_is_cancelled_at_once(shop: Shop) -> None:
    await shop.send(SUBMIT)
    await shop.serve()
    (job,) = await shop.jobs()
    await shop.send({"type": "CancelJob", "job_id": job.id, "reason": "sold out", "reply_to": REPLIES})
    await shop.serve()
    await shop.send({"type": "CancelJob", "job_id": job.id, "reply_to": REPLIES})
    await shop.serve()

    (cancelled,) = await shop.jobs()
    assert (cancelled.state, cancelled.error_message) == ("CANCELLED", "sold out")
    assert [(answer["type"], answer["is_new"]) for answer in await shop.answers()] == [
        ("CommandAccepted", True),
        ("CommandAccepted", False),
    ]


async def test_a_cancel_that_comes_again_is_issued_once(shop: Shop) -> None:
    await shop.send(SUBMIT)
    await shop.serve()
    (job,) = await shop.jobs()
    await shop.front.start_job(job.id)
    await shop.send({"type": "CancelJob", "job_id": job.id, "reply_to": REPLIES})
    await shop.desk.run_once(Forgetful(shop.subscription), 5.0)
    await shop.open()

    await shop.serve()

    assert len(await shop.front.database.fetch("SELECT FROM job_commands")) == 1
    assert [answer["is_new"] for answer in await shop.answers()] == [True, False]
    assert len(shop.front.wake.shards) == 1


async def test_a_key_for_the_cancel_of_another_job_is_refused(shop: Shop) -> None:
    await shop.send(SUBMIT, SUBMIT)
    await shop.serve()
    first, second = await shop.jobs()
    for job in (first, second):
        await shop.front.start_job(job.id)
        await shop.send({"type": "CancelJob", "job_id": job.id, "idempotency_key": "k", "reply_to": REPLIES})
    await shop.serve()

    accepted, refused = await shop.answers()
    assert accepted["job_id"] == first.id
    assert f"used for a command to job {first.id}" in refused["detail"]


async def test_the_cancel_of_an_ended_job_is_refused(shop: Shop) -> None:
    await shop.send(SUBMIT)
    await shop.serve()
    (job,) = await shop.jobs()
    await shop.front.end_job(job.id, "COMPLETED")
    await shop.send({"type": "CancelJob", "job_id": job.id, "reply_to": REPLIES})

    await shop.serve()

    (answer,) = await shop.answers()
    assert (answer["code"], "already ended COMPLETED" in answer["detail"]) == ("ERR_CONFLICT", True)


class TellingClock(SystemClock):
    """Says when somebody begins to sleep."""

    def __init__(self) -> None:
        self.slept = asyncio.Event()

    async def sleep(self, delay_s: float) -> None:
        self.slept.set()
        await super().sleep(delay_s)


async def test_a_database_that_is_away_is_waited_out(shop: Shop) -> None:
    clock = TellingClock()
    shop.desk = CommandsDesk(shop.front.bus, shop.front.manager, clock, "life-1")
    await shop.send(SUBMIT | {"reply_to": REPLIES}, b"garbage")
    await shop.front.database.close()
    serving = asyncio.create_task(shop.serve())
    async with asyncio.timeout(40):
        await clock.slept.wait()
    backlog_meanwhile = await shop.backlog()

    await shop.front.database.open()
    await serving

    assert backlog_meanwhile == 2
    assert len(await shop.jobs()) == 1
    assert await shop.backlog() == 0
    assert [message.body for message in await shop.dead()] == [b"garbage"]


class Broken(Manager):
    """Cannot take jobs of one region, for a reason of its own."""

    async def submit_batch(
        self, requests: Sequence[JobRequest], ids: Sequence[Any] = ()
    ) -> list[Submitted | FormicaryError]:
        if any(request.params["region"] == "moon" for request in requests):
            raise ArithmeticError("the moon is too far")
        return await super().submit_batch(requests, ids)


async def test_what_fails_otherwise_is_tried_five_times_and_holds_up_nobody(shop: Shop) -> None:
    shop.front.manager.__class__ = Broken
    await shop.send(SUBMIT | {"params": {"region": "moon"}, "reply_to": REPLIES}, SUBMIT)

    counts = [await shop.serve() for _ in range(5)]

    assert counts == [2, 1, 1, 1, 1]
    assert len(await shop.jobs()) == 1
    (buried,) = await shop.dead()
    assert "the moon is too far" in buried.headers[REASON_HEADER]
    assert [answer["code"] for answer in await shop.answers()] == ["ERR_INTERNAL"]


async def test_the_service_serves_until_it_is_stopped(shop: Shop) -> None:
    await shop.subscription.close()
    await shop.desk.start()
    await shop.send(SUBMIT | {"reply_to": REPLIES})

    entries = await shop.front.broker.read(REPLIES, START, 1, 40.0)
    await shop.desk.stop()
    await shop.open()
    await shop.send(SUBMIT)

    assert len(entries) == 1
    assert await shop.backlog() == 1
