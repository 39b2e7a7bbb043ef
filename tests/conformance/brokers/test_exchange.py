"""What MESSAGING tasks rest on, over every broker: what is sent arrives, and no reply is lost on the way."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brokers.base import START, Broker, Edge, Message
from executors.base import Run
from executors.messaging import MessagingExecutor
from executors.options import ExecutorOptions
from executors.specs import MessagingSpec
from executors.testing import CollectingSink, make_attempt
from formicary import exchange as exchange_module
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.exchange import BrokerExchange

Rig = Any  # the fixture's class lives in conftest, which cannot be imported
Server = Any


def exchange_over(broker: Broker, own_topic: str | None = None) -> BrokerExchange:
    clock = SystemClock()
    return BrokerExchange(broker, Bus(broker, "test", clock), clock, own_topic)


async def test_a_request_carries_its_key_and_headers_and_the_reply_comes_back(rig: Rig, tmp_path: Path) -> None:
    topic, replies = rig.topic(), rig.topic()
    executor = MessagingExecutor(ExecutorOptions(exchange=exchange_over(await rig.open()), reply_topic=replies))
    spec = MessagingSpec(topic=topic, key="k", headers={"tenant": "é"}, body=[1])
    run = await executor.start(make_attempt(spec, tmp_path), CollectingSink())

    service = await rig.open()
    (entry,) = await rig.read(service, topic, 1)
    assert (entry.message.key, entry.message.headers["tenant"]) == ("k", "é")
    await answer(service, entry.message)

    async with asyncio.timeout(40):
        assert (await executor.wait(run)).outputs == {"body": [1]}
    await executor.close()


async def answer(service: Broker, request: Message) -> None:
    asked = json.loads(request.body)
    verdict = {"correlation_id": asked["correlation_id"], "status": "COMPLETED", "outputs": {"body": asked["body"]}}
    await service.publish([Message(asked["reply_to"], "", json.dumps(verdict).encode())])


async def test_a_topic_of_the_ants_own_is_trimmed_as_it_is_read_and_deleted_at_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "_TRIM_COUNT", 2)
    broker, topic, shared = await rig.open(), rig.topic(), rig.topic()
    exchange = exchange_over(broker, topic)
    own, other = await exchange.listen(topic), await exchange.listen(shared)
    for number in range(3):
        for place in (topic, shared):
            await broker.publish(rig.messages(place, str(number)))
        async with asyncio.timeout(40):
            assert (await own.receive(), await other.receive()) == ([str(number).encode()],) * 2

    assert len(await broker.read(shared, START, 10, 0.1)) == 3
    await exchange.close()
    await exchange.close()
    assert await broker.read(topic, START, 10, 0.1) == []
    assert len(await broker.read(shared, START, 10, 0.1)) == 3


async def test_replies_that_others_trimmed_are_passed_over(rig: Rig) -> None:
    broker, topic = await rig.open(), rig.topic()
    replies = await exchange_over(broker).listen(topic)
    await broker.publish(rig.messages(topic, "first"))
    assert await replies.receive() == [b"first"]
    await broker.publish(rig.messages(topic, "gone"))
    end = await broker.end(topic)
    assert not isinstance(end, Edge)
    await broker.trim(topic, end)

    async def receive_next() -> None:
        while b"next" not in (bodies := await replies.receive()):
            assert set(bodies) == {b"gone"}, "a broker may keep more than it was told to"

    receiving = asyncio.create_task(receive_next())
    async with asyncio.timeout(40):
        while not receiving.done():  # what comes before the new end was looked up is passed over too
            await broker.publish(rig.messages(topic, "next"))
            await asyncio.wait({receiving}, timeout=0.1)
        await receiving


@pytest.fixture
def redis(servers: Callable[[str], Server]) -> Server:
    return servers("redis")


async def test_an_attempt_outlives_an_outage_of_the_broker(
    redis: Server, make_rig: Callable[[Server], Rig], tmp_path: Path
) -> None:
    rig = make_rig(redis)
    topic, replies = rig.topic(), rig.topic()
    executor = MessagingExecutor(ExecutorOptions(exchange=exchange_over(await rig.open()), reply_topic=replies))
    service = await rig.open()
    runs: list[Run] = []

    async def ask(number: int) -> None:
        attempt = make_attempt(MessagingSpec(topic=topic, body=number), tmp_path, number=number)
        runs.append(await executor.start(attempt, CollectingSink()))

    await ask(1)
    (first,) = await rig.read(service, topic, 1)
    await asyncio.to_thread(redis.stop)
    await ask(2)
    await asyncio.to_thread(redis.start)
    requests = await rig.read(service, topic, 2)
    for request in (first, requests[-1]):
        await answer(service, request.message)

    async with asyncio.timeout(40):
        assert [(await executor.wait(run)).outputs for run in runs] == [{"body": 1}, {"body": 2}]
    await executor.close()
    await rig.close()
