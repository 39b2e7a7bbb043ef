"""An engine that is reached over TCP by whoever has a certificate of its authority."""

import asyncio
import json
from pathlib import Path

import pytest

from executors.docker.executor import DockerExecutor
from executors.errors import ExecutorError
from executors.options import ExecutorOptions
from executors.specs import ReadySpec, ServiceSpec
from formicary.ant.engines import remove_containers
from tests.engines import GIVEN, IMAGE, TestEngine, needs_own_engine
from tests.integration.docker.conftest import MakeBench, spec

pytestmark = [
    needs_own_engine,
    pytest.mark.skipif(bool(GIVEN), reason="the engine given may have no TLS"),
    pytest.mark.usefixtures("leaves_nothing"),
]


@pytest.fixture(autouse=True)
def tls(engine: TestEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(engine.certs))


async def test_a_task_runs_with_services_files_and_all_its_output(make_bench: MakeBench, engine: TestEngine) -> None:
    bench = await make_bench(docker_host=engine.tls_url)
    serve = ("sh", "-c", "mkdir -p /www; exec httpd -f -p 8080 -h /www")
    web = ServiceSpec(name="web", image=IMAGE, command=serve, ready=ReadySpec(port=8080))
    docker = spec("cat in; echo err >&2; seq 100000 > out; cat out", services=(web,))
    attempt = bench.attempt(docker)
    (attempt.folder.path() / "in").write_text("brought\n")

    ended = await bench.run(docker, "out", attempt=attempt)

    numbers = (ended.folder / "out").read_text()
    assert numbers.endswith("\n100000\n")
    assert ended.text == "brought\n" + numbers


async def test_the_warden_ends_containers_over_tls_too(engine: TestEngine) -> None:
    labels = {"formicary.job": "j", "formicary.ant": "tls@1"}
    config = json.dumps({"Image": IMAGE, "Cmd": ["sleep", "300"], "Labels": labels}).encode()
    made = engine.call("POST", "/containers/create", config, **{"Content-Type": "application/json"})
    engine.call("POST", f"/containers/{made['Id']}/start")

    assert await asyncio.to_thread(remove_containers, engine.tls_url, ["tls@1"], 5.0)

    assert engine.containers() == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda certs: (certs / "key.pem").unlink(), "wants ca.pem, cert.pem and key.pem"),
        (lambda certs: (certs / "cert.pem").write_text("none"), "wants ca.pem, cert.pem and key.pem"),
        (lambda certs: (certs / "ca.pem").write_bytes((certs / "other.pem").read_bytes()), "certificate verify failed"),
    ],
)
async def test_certificates_that_will_not_do_are_said_to_be_wrong(
    engine: TestEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object, words: str
) -> None:
    for file in engine.certs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    await _make_authority(tmp_path / "other.pem")
    assert callable(spoil)
    spoil(tmp_path)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    executor = DockerExecutor(ExecutorOptions(docker_host=engine.tls_url))

    with pytest.raises(ExecutorError, match=words):
        await executor.check()
    await executor.close()


async def test_an_engine_that_wants_tls_is_not_reached_without(
    engine: TestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    executor = DockerExecutor(ExecutorOptions(docker_host=engine.tls_url))

    with pytest.raises(ExecutorError, match="HTTP request to an HTTPS server"):
        await executor.check()
    await executor.close()


async def _make_authority(file: Path) -> None:
    arguments = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=other -keyout {file}.key -out {file}"
    process = await asyncio.create_subprocess_exec("openssl", *arguments.split(), stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
