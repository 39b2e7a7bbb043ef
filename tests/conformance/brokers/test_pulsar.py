"""What is Pulsar's own: the keeper of a topic, and its URLs."""

import asyncio
from typing import Any

import pytest

from brokers import pulsar_link
from brokers.errors import UnknownBrokerError
from brokers.pulsar_link import Link
from brokers.registry import make_broker
from brokers.urls import parse_url

Server = Any  # the fixture's class lives in conftest, which cannot be imported
Rig = Any


@pytest.fixture
def server(servers: Any) -> Server:
    return servers("pulsar")


async def test_a_topic_made_anew_by_the_server_gets_its_keeper_with_the_first_message(
    server: Server, server_rig: Rig
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "before"))
    await server.delete_underneath(topic)
    await broker.publish(server_rig.messages(topic, "after"))
    link = Link(parse_url(server.url, 6650, ("admin",)))
    await link.admin.open()
    assert await link.admin.trimmed_up_to(topic) is not None
    await link.admin.close()
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["after"]


async def test_a_deleted_topic_stays_away_when_others_have_not_used_it_for_long(
    server_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulsar_link, "_UPKEEP_S", 0.1)
    monkeypatch.setattr(pulsar_link, "_IDLE_S", 0.5)
    broker, other, topic = await server_rig.open(), await server_rig.open(), server_rig.topic()
    for user in (broker, other):
        await user.publish(server_rig.messages(topic, "a"))
    async with asyncio.timeout(60):
        # As long as the other has a producer, the server makes the topic anew at once.
        while await broker.topics(topic):
            await broker.delete_topic(topic)
            await asyncio.sleep(1.0)
    await other.publish(server_rig.messages(topic, "b"))
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["b"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pulsar://token@host", "a token stands behind a colon"),
        ("pulsar://host?admin=host:8080", "option admin must be http://host:port or https://host:port"),
        ("pulsar://host?admin=http://user:secret@host", "without credentials"),
        ("pulsar://host/tenant", "must be tenant/namespace"),
    ],
)
def test_a_bad_url_says_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(UnknownBrokerError, match=message) as caught:
        make_broker(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "admin"),
    [("pulsar://:t@host", "http://host:8080"), ("pulsar+ssl://:t@host", "https://host:8443")],
)
def test_a_token_travels_over_tls_to_the_admin_interface_too(url: str, admin: str) -> None:
    link = Link(parse_url(url, 6650, ()))
    assert link.admin._url == admin
