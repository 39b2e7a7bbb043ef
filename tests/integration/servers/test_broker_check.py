"""``formicary broker check`` against each real broker: what it proves, what it says when something is wrong."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest

from brokers.base import START, Broker, Edge, Entry, Message, Position
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from brokers.probe import PREFIX, Findings, probe

Command = Callable[..., CompletedProcess[str]]
Servers = Any  # the fixtures' classes live in conftest, which cannot be imported

STEPS = (
    "connect",
    "round trips",
    "order",
    "positions",
    "trim",
    "large body",
    "group",
    "redelivery",
    "dead letter",
    "durability",
)
#: Wrong settings must show within this time on a busy machine, in seconds; a check itself waits 5 s for an answer.
FAST_S = 40.0
PATIENCE_S = 60.0
BROKERS = ["redis", "kafka", "pulsar"]
#: What the servers of ``scripts/servers`` have: the settings that are as wanted, and those that are not.
DURABILITY = {
    "redis": ({"appendonly", "appendfsync", "maxmemory-policy"}, set[str]()),
    "kafka": ({"unclean.leader.election.enable"}, {"replication.factor", "min.insync.replicas"}),
    "pulsar": (
        {"brokerDeleteInactiveTopicsEnabled", "managedLedgerNewEntriesCheckDelayInMillis", "journalSyncData"},
        {"write quorum", "ack quorum"},
    ),
}


@pytest.fixture(params=BROKERS)
def urls(request: pytest.FixtureRequest, servers: Servers) -> dict[str, str]:
    return dict(servers.urls(request.param))


def with_other_secret(url: str) -> str:
    login, _, place = url.rpartition("@")
    return f"{login.rpartition(':')[0]}:wrong-secret@{place}"


def is_one_sentence(text: str) -> bool:
    return text.startswith("formicary: ") and text.count("\n") == 1 and "Traceback" not in text


class Proved(NamedTuple):
    """What one check of a real server printed."""

    name: str
    url: str
    text: str
    found: dict[str, Any]


@pytest.fixture(scope="module", params=BROKERS)
def proved(request: pytest.FixtureRequest, servers: Servers, bare_environment: dict[str, str]) -> Proved:
    url = servers.urls(request.param)["URL"]
    ended = subprocess.run(
        [Path(sys.executable).parent / "formicary", "broker", "check", "-o", "json"],
        env={**bare_environment, "FORMICARY_BROKER_URL": url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return Proved(request.param, url, ended.stdout, json.loads(ended.stdout))


def test_a_broker_is_proved_and_its_round_trips_are_told(proved: Proved) -> None:
    found = proved.found
    assert (found["is_ok"], found["error"], found["left_behind"]) == (True, None, [])
    assert tuple(step["name"] for step in found["steps"]) == STEPS
    for times in (found["publish_ms"], found["round_trip_ms"]):
        assert times["count"] == 100
        assert 0 < times["p50"] <= times["p99"]
    assert "throw-away" not in proved.text


def test_the_settings_that_durability_rests_on_are_read(proved: Proved) -> None:
    met, weak = DURABILITY[proved.name]
    found = proved.found["durability"]
    assert {setting["setting"] for setting in found if setting["is_met"]} == met
    assert {setting["setting"] for setting in found if not setting["is_met"]} == weak


async def test_nothing_is_left_on_the_server(proved: Proved) -> None:
    async with asyncio.timeout(FAST_S):
        # Kafka says that a topic is deleted a moment before it is.
        while [name for name in await _topics(proved.url) if PREFIX in name]:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)


def test_weak_durability_is_a_warning_with_its_risk(formicary: Command, servers: Servers) -> None:
    ended = formicary("broker", "check", servers.urls("kafka")["URL"])
    assert ended.returncode == 0
    warning = "  warn  replication.factor is 1, wanted 2 or more (3 is usual): otherwise a server that loses its power"
    assert warning in ended.stdout
    assert "round trip: p50 " in ended.stdout


async def _topics(url: str) -> list[str]:
    """Returns the topics that a server holds, asked with its own client."""
    scheme = url.partition(":")[0]
    if scheme == "redis":
        from redis.asyncio import Redis

        async with Redis.from_url(url) as client:
            return [str(key) for key in await client.keys("*")]
    if scheme == "kafka":
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=url.partition("://")[2])
        await admin.start()
        try:
            return list(await admin.list_topics())
        finally:
            await admin.close()
    import aiohttp

    place, _, query = url.partition("?admin=")
    token = place.partition("://:")[2].partition("@")[0]
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.get(f"{query}/admin/v2/persistent/public/default") as answer,
    ):
        return list(await answer.json())


def test_a_wrong_secret_is_told_in_a_sentence(formicary: Command, urls: dict[str, str]) -> None:
    began = time.monotonic()
    ended = formicary("broker", "check", with_other_secret(urls.get("SASL_URL", urls["URL"])))
    assert ended.returncode == 1
    assert is_one_sentence(ended.stderr), ended.stderr
    assert "refused" in ended.stderr
    assert "wrong-secret" not in ended.stdout + ended.stderr
    assert time.monotonic() - began < FAST_S


def test_a_user_without_grants_is_told_what_it_may_not(formicary: Command, urls: dict[str, str]) -> None:
    ended = formicary("broker", "check", urls["LIMITED_URL"], "-o", "json")
    assert ended.returncode == 1
    assert is_one_sentence(ended.stderr), ended.stderr
    found = json.loads(ended.stdout)
    assert [step["name"] for step in found["steps"]] == ["connect"]
    assert "refused" in found["error"]


@pytest.mark.parametrize("command", [("broker", "check"), ("ant", "--check", "--broker-url")])
def test_a_server_that_is_not_there_is_told_at_once(formicary: Command, command: tuple[str, ...]) -> None:
    schemes = ["redis", "rediss", "kafka", "kafkas", "pulsar", "pulsar+ssl"]
    with socket.socket() as unused, ThreadPoolExecutor() as threads:
        unused.bind(("127.0.0.1", 0))
        urls = [f"{scheme}://127.0.0.1:{unused.getsockname()[1]}" for scheme in schemes]
        began = time.monotonic()
        for ended in threads.map(lambda url: formicary(*command, url), urls):
            assert ended.returncode == 1
            assert "cannot be reached" in ended.stdout + ended.stderr
            assert "Traceback" not in ended.stderr
            assert ended.stderr.count("\n") == 1
    assert time.monotonic() - began < FAST_S


def test_a_server_that_never_answers_is_not_waited_for(formicary: Command, silent_port: int) -> None:
    place = f"127.0.0.1:{silent_port}"
    urls = [f"redis://{place}", f"kafka://{place}", f"pulsar://{place}?admin=http://{place}"]
    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        for ended in threads.map(lambda url: formicary("broker", "check", url), urls):
            assert ended.returncode == 1
            assert is_one_sentence(ended.stderr), ended.stderr
    assert time.monotonic() - began < FAST_S


def test_a_url_and_a_server_that_differ_about_tls_are_told(formicary: Command, urls: dict[str, str]) -> None:
    plain, secure = urls["URL"], urls.get("TLS_URL", urls.get("SCRAM_TLS_URL", ""))
    without, with_tls = plain.partition("://")[0], secure.partition("://")[0]
    certificates = {"redis": "?", "kafka": "?", "pulsar": "&"}[without] + "ca=" + _certificate(secure)
    mistakes = [
        (f"{without}://{secure.partition('://')[2]}", f"speaks TLS, and {without}:// is without; write {with_tls}://"),
        (f"{with_tls}://{plain.partition('://')[2]}{certificates}", f"for a port without TLS write {without}://"),
    ]
    with ThreadPoolExecutor() as threads:
        for ended, (_, words) in zip(
            threads.map(lambda mistake: formicary("broker", "check", mistake[0]), mistakes), mistakes, strict=True
        ):
            assert ended.returncode == 1
            assert is_one_sentence(ended.stderr), ended.stderr
            assert words in ended.stderr


def _certificate(url: str) -> str:
    return dict(parse_qsl(urlsplit(url).query))["ca"]


def test_more_copies_than_servers_are_told_with_what_would_do(formicary: Command, servers: Servers) -> None:
    ended = formicary("broker", "check", servers.urls("kafka")["URL"] + "?replication=5")
    assert ended.returncode == 1
    assert is_one_sentence(ended.stderr), ended.stderr
    assert "write replication=1" in ended.stderr


def test_a_login_that_a_port_does_not_take_or_asks_for_is_told(formicary: Command, servers: Servers) -> None:
    found = servers.urls("kafka")
    ended = formicary("broker", "check", found["URL"].replace("://", "://alice:throw-away@"))
    assert "takes no user and password" in ended.stderr
    ended = formicary("broker", "check", "kafka://" + found["SASL_URL"].partition("@")[2].partition("?")[0])
    assert "does this port ask for user and password" in ended.stderr


def test_a_server_that_is_no_redis_is_told_in_a_sentence(formicary: Command, servers: Servers) -> None:
    place = urlsplit(servers.urls("s3")["ENDPOINT"]).netloc
    ended = formicary("broker", "check", f"redis://{place}")
    assert ended.returncode == 1
    assert is_one_sentence(ended.stderr), ended.stderr
    assert f"redis://{place} cannot be reached: " in ended.stderr
    assert "a defect" not in ended.stderr


def test_a_namespace_that_does_not_exist_is_told_before_anything_is_tried(formicary: Command, servers: Servers) -> None:
    place, _, options = servers.urls("pulsar")["URL"].partition("?")
    ended = formicary("broker", "check", f"{place}/public/absent?{options}", "-o", "json")
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["steps"] == []
    assert "Namespace does not exist" in ended.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "known are memory://, redis://"),
        ("amqp://host", "no broker speaks amqp://host"),
        ("redis://host:port", "'port' is no port"),
        ("kafka://host?surprise=1", "unknown option 'surprise'"),
        ("pulsar://:secret@", "names no host"),
    ],
)
def test_a_wrong_url_is_told_in_a_sentence(formicary: Command, url: str, words: str) -> None:
    ended = formicary("broker", "check", url)
    assert ended.returncode == 1
    assert is_one_sentence(ended.stderr), ended.stderr
    assert words in ended.stderr
    assert "secret" not in ended.stdout + ended.stderr


class Faulty(MemoryBroker):
    """A broker that breaks one promise."""

    def __init__(self, fault: str) -> None:
        super().__init__(MemoryServer())
        self._fault = fault

    async def publish(self, messages: Any) -> None:
        if self._fault == "order" and len(messages) > 100:
            messages = [*messages[50:], *messages[:50]]
        if self._fault == "large body":
            messages = [Message(m.topic, m.key, m.body[: 1024 * 512], m.headers) for m in messages]
        if self._fault == "headers":
            messages = [Message(m.topic, m.key, m.body) for m in messages]
        await super().publish(messages)

    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        if self._fault == "positions" and not isinstance(after, Edge):
            after = START
        return await super().read(topic, after, max_count, timeout_s)


@pytest.mark.parametrize(
    ("fault", "step", "words"),
    [
        ("order", "order", "the order of a key was not kept"),
        ("headers", "order", "headers did not arrive"),
        ("large body", "large body", "was changed on its way"),
        ("positions", "positions", "something else than what follows"),
    ],
)
async def test_a_broken_promise_is_found(fault: str, step: str, words: str) -> None:
    broker: Broker = Faulty(fault)
    findings: Findings = await probe(broker, lambda step: None)
    assert findings.error is not None
    assert words in findings.error
    assert len(findings.steps) == STEPS.index(step)
    assert findings.left_behind == []
