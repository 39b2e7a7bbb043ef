"""The example service, against a colony over each broker: nothing of Formicary on its side of the wire."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brokers.registry import make_broker

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "bus-service"
#: What the service may take, on a machine that does other things too, in seconds.
PATIENCE_S = 60.0

Servers = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any
Service = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["redis", "kafka", "pulsar"])
def broker_url(request: pytest.FixtureRequest, servers: Servers) -> str:
    return str(servers.urls(request.param)["URL"])


@pytest.fixture
def colony(serve: Callable[..., Server], formicary: Callable[..., Any], broker_url: str) -> Server:
    settings = {"FORMICARY_BROKER_URL": broker_url, "FORMICARY_LISTEN": "127.0.0.1:0"}
    server = serve("up", "--slots", "2", **settings)
    server.until(server.ready.exists)
    events = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    (address,) = [event["address"] for event in events if event["event"] == "api_listens"]
    applied = formicary("definition", "apply", EXAMPLE / "hello.yaml", FORMICARY_SERVER=address)
    assert applied.returncode == 0, applied.stderr
    return server


@pytest.fixture
def service(broker_url: str, bare_environment: dict[str, str]) -> Service:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, EXAMPLE / "service.py", broker_url.partition("?")[0], *arguments],
            env=bare_environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


async def _topics_of(url: str) -> set[str]:
    broker = make_broker(url)
    await broker.open()
    try:
        return set(await broker.topics("formicary."))
    finally:
        await broker.close()


def test_a_service_finds_its_topics_submits_a_job_and_sees_its_end(
    colony: Server, service: Service, broker_url: str
) -> None:
    wanted = {"formicary.commands", "formicary.commands.dead", "formicary.lifecycle"}
    assert wanted <= asyncio.run(_topics_of(broker_url))

    completed = service("hello", "name=Ada")
    assert completed.returncode == 0, completed.stdout + completed.stderr + colony.log.read_text()
    assert completed.stdout.startswith("job ")
    assert completed.stdout.rstrip().endswith("COMPLETED")

    failed = service("hello", "name=")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert " FAILED " in failed.stdout

    refused = service("nobody-knows-it")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert refused.stdout.startswith("refused: ERR_NOT_FOUND: ")


def test_the_example_needs_nothing_of_formicary() -> None:
    imported = {
        line.split()[1].partition(".")[0]
        for path in EXAMPLE.glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith(("import ", "from "))
    }
    assert not imported & {"formicary", "brokers", "executors"}
    assert {"redis", "aiokafka", "pulsar"} <= imported
