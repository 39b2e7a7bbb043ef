"""Jobs whose artifacts lie in a bucket: queens and ants of the real command line share nothing else."""

import asyncio
import hashlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import aioboto3
import pytest

Command = Callable[..., CompletedProcess[str]]
Servers = Any  # the fixtures' classes live in conftest, which cannot be imported
Server = Any

#: The first task's file is large enough for an upload in parts; the second needs all of it.
JOB = """
job_type: halves
tasks:
  - task_type: make
    method: SHELL
    script:
      - head -c 18000000 /dev/urandom > big.bin
      - mkdir -p 'a folder' && printf small > 'a folder/ü %20+#.txt'
      - echo "digest=$(sha256sum < big.bin | cut -c1-64)" >> "$FORMICARY_OUTPUT"
    artifacts: {paths: [big.bin, "a folder/**"]}
  - task_type: cut
    method: SHELL
    dependencies: [make]
    script:
      - test "$(sha256sum < big.bin | cut -c1-64)" = "{{ tasks.make.outputs.digest }}"
      - test "$(cat 'a folder/ü %20+#.txt')" = small
      - test -z "$(env | grep AWS_)"
      - head -c 1000 big.bin > half.bin
    artifacts: {paths: [half.bin]}
  - task_type: join
    method: SHELL
    dependencies: [make, cut]
    script:
      - cmp -n 1000 big.bin half.bin
"""


class Bucket:
    """A bucket of its own for each test, and what lies in it."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.name = f"test-{os.urandom(6).hex()}"
        self.endpoint = urls["ENDPOINT"]
        self._login = {"aws_access_key_id": urls["ACCESS_KEY"], "aws_secret_access_key": urls["SECRET_KEY"]}

    @property
    def environment(self) -> dict[str, str]:
        login = {name.upper(): value for name, value in self._login.items()}
        return login | {"FORMICARY_ARTIFACTS_URL": self.url(self.endpoint), "AWS_EC2_METADATA_DISABLED": "true"}

    def url(self, endpoint: str) -> str:
        return f"s3://{self.name}/of%20us?endpoint={endpoint}&region=us-east-1"

    async def make(self) -> None:
        async with self._client() as client:
            await client.create_bucket(Bucket=self.name)

    async def digests(self) -> set[str]:
        """Returns the sha256 of everything that is stored."""
        async with self._client() as client:
            page = await client.list_objects_v2(Bucket=self.name, Prefix="of us/")
            found = set()
            for item in page.get("Contents", ()):
                answer = await client.get_object(Bucket=self.name, Key=item["Key"])
                found.add(hashlib.sha256(await answer["Body"].read()).hexdigest())
            return found

    def _client(self) -> Any:
        session = aioboto3.Session(region_name="us-east-1", **self._login)
        return session.client("s3", endpoint_url=self.endpoint)


@pytest.fixture
def bucket(servers: Servers) -> Bucket:
    bucket = Bucket(servers.urls("s3"))
    asyncio.run(bucket.make())
    return bucket


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def artifacts(job: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["sha256"] for task in job["tasks"] for item in task["artifacts"]}


def test_a_run_keeps_its_artifacts_in_a_bucket(formicary: Command, bucket: Bucket, job: Path, home: Path) -> None:
    ended = formicary("run", job, "-o", "json", **bucket.environment)
    assert ended.returncode == 0, ended.stderr
    found = artifacts(json.loads(ended.stdout))
    assert found.keys() == {"big.bin", "a folder/ü %20+#.txt", "half.bin"}
    assert asyncio.run(bucket.digests()) >= set(found.values())
    assert not (home / "artifacts").exists()


def test_queens_and_ants_share_a_bucket_and_the_api_gives_the_bytes(
    formicary: Command, serve: Callable[..., Server], servers: Servers, bucket: Bucket, job: Path
) -> None:
    settings = bucket.environment | {
        "FORMICARY_DATABASE_URL": servers.urls("postgres")["URL"],
        "FORMICARY_BROKER_URL": servers.urls("redis")["URL"],
        "FORMICARY_LISTEN": "127.0.0.1:0",
    }
    queen, ant = serve("queen", **settings), serve("ant", "--methods", "SHELL", **settings)
    queen.until(queen.ready.exists)
    ant.until(ant.ready.exists)
    (address,) = [event["address"] for event in _events(queen.log, "api_listens")]
    assert formicary("definition", "apply", job, FORMICARY_SERVER=address).returncode == 0
    ended = formicary("job", "submit", "halves", "--wait", "-o", "json", FORMICARY_SERVER=address)
    assert ended.returncode == 0, ended.stderr + ant.log.read_text()
    done = json.loads(ended.stdout)
    for name, path in (("big.bin", "make/big.bin"), ("half.bin", "cut/half.bin")):
        with urllib.request.urlopen(f"{address}/api/v1/jobs/{done['id']}/artifacts/{path}", timeout=30) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == artifacts(done)[name]
            assert answer.url.startswith(address)
        url = f"{address}/api/v1/jobs/{done['id']}/artifacts/{path}?redirect=1"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == artifacts(done)[name]
            assert answer.url.startswith(bucket.endpoint)


def test_a_check_tells_what_is_wrong_with_a_bucket(formicary: Command, bucket: Bucket, servers: Servers) -> None:
    settings = bucket.environment | {"FORMICARY_BROKER_URL": servers.urls("redis")["URL"]}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for change, message in (
            ({}, f"ok     artifacts  {settings['FORMICARY_ARTIFACTS_URL']} can be written"),
            ({"AWS_SECRET_ACCESS_KEY": "very-wrong"}, "wrong  artifacts  cannot write (bucket"),
            ({"FORMICARY_ARTIFACTS_URL": f"s3://nobody-made-it?endpoint={bucket.endpoint}"}, "create it first"),
            ({"FORMICARY_ARTIFACTS_URL": bucket.url(away)}, "cannot be reached"),
        ):
            ended = formicary("ant", "--check", "--methods", "SHELL", **(settings | change))
            assert " ".join(message.split()) in " ".join(ended.stdout.split())
            assert ended.returncode == (1 if change else 0)
            assert "very-wrong" not in ended.stdout + ended.stderr
            assert "Traceback" not in ended.stderr


def test_a_bucket_that_is_away_at_the_start_is_waited_for(
    serve: Callable[..., Server], servers: Servers, bucket: Bucket, bare_environment: dict[str, str]
) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    settings = bucket.environment | {
        "FORMICARY_BROKER_URL": servers.urls("redis")["URL"],
        "FORMICARY_ARTIFACTS_URL": bucket.url(f"http://127.0.0.1:{port}"),
    }
    ant = serve("ant", "--methods", "SHELL", **settings)
    ant.until(lambda: _events(ant.log, "artifacts_away"))
    assert not ant.ready.exists()
    relay = subprocess.Popen(
        [sys.executable, "-c", RELAY, str(port), bucket.endpoint.rpartition(":")[2]], env=bare_environment
    )
    try:
        ant.until(ant.ready.exists)
    finally:
        relay.kill()
        relay.wait()


RELAY = """
import asyncio, sys

async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def relay(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def _events(log: Path, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [event for event in found if event["event"] == name]
