"""TLS, passwords, tokens, certificates and grants, against the real servers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokers.base import Message
from brokers.errors import BrokerRefusedError, BrokerUnavailableError, UnknownBrokerError
from brokers.probe import probe
from brokers.registry import make_broker

Rig = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

#: What a first connection may take at most, whatever is wrong with it, in seconds.
FAST_S = 40.0

#: Every way in that the servers offer, and what it shows.
WAYS = {
    "redis": {"password-over-tls": "TLS", "user-with-grants-over-tls": "APP_TLS", "certificate": "MTLS"},
    "kafka": {
        "scram-256": "SASL",
        "plain": "PLAIN",
        "plain-over-tls": "TLS",
        "scram-512-over-tls": "SCRAM_TLS",
        "certificate": "MTLS",
    },
    "pulsar": {"token-over-tls": "TLS", "certificate": "MTLS"},
}


def url(server: Server, way: str) -> str:
    return str(server.urls[f"FORMICARY_TEST_{server.name.upper()}_{way}_URL"])


def without(text: str, *options: str) -> str:
    """Returns a URL without some of its options."""
    place, _, query = text.partition("?")
    return place + "?" + "&".join(part for part in query.split("&") if part.partition("=")[0] not in options)


@pytest.mark.parametrize(
    ("name", "way"),
    [pytest.param(name, way, id=f"{name}-{label}") for name, ways in WAYS.items() for label, way in ways.items()],
)
async def test_messages_travel_by_every_way_in(servers: Any, name: str, way: str, unused: str) -> None:
    broker = make_broker(url(servers(name), way))
    await broker.open()
    await broker.publish([Message(unused, "k", b"a")])
    async with asyncio.timeout(FAST_S):
        end = await broker.end(unused)
        reading = asyncio.create_task(broker.read(unused, end, 1, FAST_S))
        await broker.publish([Message(unused, "k", b"b")])
        assert [entry.message.body for entry in await reading] == [b"b"]
    await broker.close()


@pytest.mark.parametrize(("name", "way"), [("redis", "APP_TLS"), ("kafka", "SCRAM_TLS"), ("pulsar", "TLS")])
async def test_logs_groups_and_dead_letters_work_over_tls_with_a_login(servers: Any, name: str, way: str) -> None:
    findings = await probe(make_broker(url(servers(name), way)), lambda step: None)

    assert (findings.error, findings.left_behind) == (None, [])
    assert {"positions", "trim", "group", "redelivery", "dead letter"} <= {step.name for step in findings.steps}


@pytest.mark.parametrize("way", ["", "TLS"], ids=["clear", "tls"])
async def test_a_wrong_password_or_token_is_refused_and_not_shown(server: Server, way: str) -> None:
    found = url(server, way) if way else server.url_with_login
    login, _, place = found.rpartition("@")
    broker = make_broker(f"{login.rpartition(':')[0]}:wrong-secret@{place}")
    with capture_logs() as logs, pytest.raises(BrokerRefusedError, match="check user, password, token") as caught:
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()
    assert "wrong-secret" not in f"{caught.value}{logs}"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_kafka_refuses_a_wrong_password_by_every_mechanism(servers: Any, mechanism: str) -> None:
    login, _, place = url(servers("kafka"), "SASL").partition("?")[0].rpartition("@")
    broker = make_broker(f"{login.rpartition(':')[0]}:wrong@{place}?mechanism={mechanism}")
    with pytest.raises(BrokerRefusedError):
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()


async def test_no_credentials_where_some_are_needed_are_refused(server: Server) -> None:
    scheme, _, rest = server.url_with_login.partition("://")
    place = without(rest.rpartition("@")[2], "mechanism")
    broker = make_broker(f"{scheme}://{place}")
    # Kafka does not say why it hangs up on who does not speak SASL.
    expected = BrokerUnavailableError if server.name == "kafka" else BrokerRefusedError
    with pytest.raises(expected):
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()


async def test_a_user_without_grants_is_refused_at_the_first_message(server: Server, unused: str) -> None:
    broker = make_broker(url(server, "LIMITED"))
    await asyncio.wait_for(broker.open(), FAST_S)
    with pytest.raises(BrokerRefusedError, match="grants") as caught:
        await asyncio.wait_for(broker.publish([Message(unused, "k", b"a private message")]), FAST_S)
    assert "private" not in str(caught.value)
    with pytest.raises(BrokerRefusedError):
        await asyncio.wait_for(broker.subscribe([unused], "g", "c"), FAST_S)
    await broker.close()


async def test_a_certificate_nobody_vouches_for_is_refused(server: Server) -> None:
    broker = make_broker(without(url(server, "TLS"), "ca"))
    with pytest.raises(BrokerRefusedError, match="certificate is not trusted"):
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()


async def test_a_certificate_for_another_name_is_refused(server: Server) -> None:
    # Another name of the same address, which the certificate does not hold.
    broker = make_broker(url(server, "TLS").replace("@127.0.0.1:", "@127.1:"))
    with pytest.raises(BrokerRefusedError, match="certificate is not trusted"):
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()


async def test_a_server_that_does_not_speak_tls_is_unavailable(server: Server) -> None:
    clear_port = server.url.rpartition("@")[2].partition("://")[2] or server.url.rpartition("@")[2]
    port = clear_port.partition("?")[0].partition("/")[0].rpartition(":")[2]
    tls = url(server, "TLS")
    tls_port = tls.rpartition("@")[2].partition("?")[0].partition("/")[0].rpartition(":")[2]
    broker = make_broker(tls.replace(f":{tls_port}", f":{port}", 1))
    with pytest.raises(BrokerUnavailableError):
        await asyncio.wait_for(broker.open(), FAST_S)
    await broker.close()


@pytest.mark.parametrize("scheme", ["rediss", "kafkas", "pulsar+ssl"])
def test_files_of_tls_are_checked_before_anything_connects(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no certificate")
    for query, message in (
        (f"ca={tmp_path}/missing", "option ca: .*missing: No such file"),
        (f"ca={tmp_path}/text", "option ca: .*text: not in PEM format"),
        (f"cert={tmp_path}/text", "options cert and key: .*text: not in PEM format"),
        (f"key={tmp_path}/text", "option key needs option cert"),
    ):
        with pytest.raises(UnknownBrokerError, match=message):
            make_broker(f"{scheme}://host?{query}")
