"""What is Redis' own: what is kept in its memory, and users with limited grants."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from brokers.base import DEAD_SUFFIX, MAX_REJECTIONS, START, Delivery, Message, Subscription
from brokers.errors import BrokerRefusedError, BrokerUnavailableError
from brokers.redis import Link, RedisBroker
from brokers.redis_subscriptions import drop_acknowledged
from brokers.registry import make_broker
from brokers.urls import parse_url

Server = Any  # the fixture's class lives in conftest, which cannot be imported
Rig = Any


@pytest.fixture
def server(servers: Any) -> Server:
    return servers("redis")


@pytest.fixture
async def client(server: Server) -> AsyncIterator["Redis"]:
    async with Redis.from_url(server.urls["FORMICARY_TEST_REDIS_URL"]) as client:
        yield client


def link(url: str) -> Link:
    return Link(parse_url(url, 6379, ("claim_after_s",)))


async def test_what_all_groups_acknowledged_is_trimmed(server: Server, server_rig: Rig, client: "Redis") -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    groups = [await broker.subscribe([topic], name, "c") for name in ("g1", "g2")]
    await broker.publish([Message(topic, "k", b"x") for _ in range(1000)])
    held = [await server_rig.receive(group, 1000) for group in groups]
    upkeep = link(server.url)
    await groups[0].ack(held[0])
    await drop_acknowledged(upkeep, topic)
    assert await client.xlen(topic) == 1000
    await groups[1].ack(held[1][500:])
    await drop_acknowledged(upkeep, topic)
    assert await client.xlen(topic) == 1000
    await groups[1].ack(held[1][:500])
    await drop_acknowledged(upkeep, topic)
    assert await client.xlen(topic) <= 100  # whole blocks only
    assert await broker.depth(topic, "g1") == 0
    await upkeep.client.aclose()


async def test_a_user_who_sees_one_prefix_only_is_enough(server: Server, server_rig: Rig, client: "Redis") -> None:
    broker = make_broker(server.urls["FORMICARY_TEST_REDIS_APP_URL"])
    await broker.open()
    topic = server_rig.topic()
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "a"))
    taken = await server_rig.receive(subscription, 1)
    for _ in range(4):
        await subscription.nack(taken)
        taken = await server_rig.receive(subscription, 1)
    await subscription.ack(taken)
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["a"]
    assert await client.exists(f"app:{topic}") == 1
    await broker.delete_topic(topic)
    assert await client.keys(f"*{topic}*") == []
    await broker.close()


@pytest.mark.parametrize(
    ("setting", "weak", "good"),
    [("appendfsync", "everysec", "always"), ("maxmemory-policy", "allkeys-lru", "noeviction")],
)
async def test_settings_that_could_lose_messages_are_logged(
    server: Server, client: "Redis", setting: str, weak: str, good: str
) -> None:
    await client.config_set(setting, weak)
    broker = make_broker(server.url)
    with capture_logs() as logs:
        await broker.open()
    await client.config_set(setting, good)
    await broker.close()
    found = [entry["settings"] for entry in logs if entry["event"] == "redis_durability_weak"]
    assert found == [{setting: weak}]


async def test_what_the_server_refuses_for_a_while_is_waited_out(
    server: Server, server_rig: Rig, client: "Redis"
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await client.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(BrokerUnavailableError, match="NOREPLICAS") as caught:
            await broker.publish([Message(topic, "k", b"private")])
    finally:
        await client.config_set("min-replicas-to-write", 0)
    assert "private" not in str(caught.value)
    await broker.publish(server_rig.messages(topic, "a"))
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["a"]


async def test_a_key_that_is_no_stream_is_refused(server_rig: Rig, client: "Redis") -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await client.set(topic, "text")
    with pytest.raises(BrokerRefusedError, match="WRONGTYPE"):
        await broker.publish(server_rig.messages(topic, "a"))
    await client.delete(topic)


async def test_dead_letters_are_kept_no_longer_than_anything_else(
    server: Server, server_rig: Rig, client: "Redis"
) -> None:
    broker, topic = make_broker(server.url + "&retention_s=1"), server_rig.topic()
    await broker.open()
    await client.xadd(topic + DEAD_SUFFIX, {"b": "old"}, id="1-1")
    for _ in range(200):
        await client.xadd(topic + DEAD_SUFFIX, {"b": "old"}, id="1-*")
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "bad"))
    for _ in range(MAX_REJECTIONS):
        await subscription.nack(await server_rig.receive(subscription, 1), reason="no")
    assert await client.xlen(topic + DEAD_SUFFIX) <= 102  # whole blocks only
    await broker.close()


async def last_delivery(server_rig: Rig, subscription: Subscription) -> list[Delivery]:
    """Returns a message that one more rejection moves to the dead letters."""
    for _ in range(MAX_REJECTIONS - 1):
        await subscription.nack(await server_rig.receive(subscription, 1))
    deliveries: list[Delivery] = await server_rig.receive(subscription, 1)
    return deliveries


async def test_a_last_rejection_that_is_cancelled_before_the_server_took_it_can_be_made_again(
    server_rig: Rig, client: "Redis"
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "bad"))
    taken = await last_delivery(server_rig, subscription)
    await client.client_pause(60_000, all=False)
    rejecting = asyncio.create_task(subscription.nack(taken, reason="no"))
    while (await client.info("clients"))["blocked_clients"] == 0:
        pass
    rejecting.cancel()
    await asyncio.wait({rejecting})
    await client.client_unpause()

    again = await server_rig.receive(subscription, 1)
    await subscription.nack(again, reason="still no")

    assert (again[0].message, again[0].rejections) == (taken[0].message, taken[0].rejections)
    assert await client.xlen(topic + DEAD_SUFFIX) == 1
    assert await broker.depth(topic, "g") == 0


async def test_a_message_whose_dead_letter_is_refused_comes_again_after_its_delay(
    server_rig: Rig, client: "Redis"
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    subscription = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "bad"))
    await client.set(topic + DEAD_SUFFIX, "no stream")
    taken = await last_delivery(server_rig, subscription)
    started_at = asyncio.get_running_loop().time()
    with pytest.raises(BrokerRefusedError, match="WRONGTYPE"):
        await subscription.nack(taken, delay_s=0.3, reason="no")
    await client.delete(topic + DEAD_SUFFIX)

    again = await server_rig.receive(subscription, 1)
    await subscription.nack(again, reason="still no")

    assert asyncio.get_running_loop().time() - started_at >= 0.29
    assert await client.xlen(topic + DEAD_SUFFIX) == 1
    assert await broker.depth(topic, "g") == 0


async def test_a_pending_receive_survives_the_loss_of_its_connection(
    server: Server, server_rig: Rig, client: "Redis"
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    subscription = await broker.subscribe([topic], "g", "c")
    waiting = asyncio.create_task(server_rig.receive(subscription, 1))
    reading = asyncio.create_task(broker.read(topic, START, 1, 20.0))
    await asyncio.sleep(0.05)
    await client.client_kill_filter(_type="normal", skipme=True)
    other = await server_rig.open()
    await other.publish(server_rig.messages(topic, "a"))
    assert server_rig.bodies(await waiting) == ["a"]
    assert server_rig.bodies(await reading) == ["a"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://host/x", "no number of a Redis database"),
        ("redis://host?claim=1", "unknown option 'claim'; known are ca, cert, claim_after_s"),
        ("redis://host?claim_after_s=soon", "must be a number of seconds above 0"),
        ("redis://host:port", "'port' is no port"),
        ("redis://", "names no host"),
        ("redis://a,b", "several hosts; clusters and sentinels of Redis are not supported"),
    ],
)
def test_a_bad_url_says_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_broker(url)


def test_a_url_is_taken_apart() -> None:
    broker = make_broker("rediss://us%40er:p%3Aw@[::1]:7000/3?prefix=app:")
    assert isinstance(broker, RedisBroker)
