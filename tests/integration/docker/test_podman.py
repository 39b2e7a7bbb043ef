"""Podman's socket in place of a Docker Engine's: what differs there, and what must not."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from executors.base import Reason, Stream
from executors.docker import manifest
from executors.errors import ImageError
from executors.specs import EmptyDirSpec, ReadySpec, ServiceSpec, VolumeSpec
from executors.testing import CollectingSink
from formicary.ant.engines import remove_containers
from tests.engines import IMAGE, TestEngine, needs_own_engine, running_engine
from tests.integration.docker.conftest import Bench, spec

pytestmark = [needs_own_engine, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture(scope="module")
def engine() -> Iterator[TestEngine]:
    with running_engine("podman") as engine:
        yield engine


async def test_a_task_has_files_volumes_results_and_both_streams(bench: Bench) -> None:
    volume = VolumeSpec(mount_path="/formicary/work/d", empty_dir=EmptyDirSpec())
    script = (
        "cat in; echo err >&2",
        "echo deep > d/deep; echo out > out",
        'echo r > "$FORMICARY_RESULT_DIR/r"; exit 3',
    )
    docker = spec(*script, after_script=("echo after >> out",), container={"volumes": (volume,)})
    attempt = bench.attempt(docker)
    (attempt.folder.path() / "in").write_text("brought\n")

    ended = await bench.run(docker, "out", "d", attempt=attempt)

    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.EXITED, 3)
    assert (ended.text, ended.sink.text(Stream.STDERR)) == ("brought\n", b"err\n")
    assert (ended.folder / "out").read_text() == "out\nafter\n"
    assert (ended.folder / "d/deep").read_text() == "deep\n"
    assert (ended.attempt.folder.result_dir / "r").read_text() == "r\n"


async def test_links_bring_what_lies_in_the_working_directory_and_nothing_else(bench: Bench) -> None:
    volume = VolumeSpec(mount_path="/formicary/work/d/v", empty_dir=EmptyDirSpec())
    script = (
        "mkdir -p /else/v in/deep; echo secret > /else/v/f; echo made > in/deep/f; echo kept > d/v/f",
        "ln -s /else out; ln -s in/deep way; ln -s out/v/f file; mv d moved; ln -s /else d",
    )

    ended = await bench.run(spec(*script, container={"volumes": (volume,)}), "out", "out/v/f", "way", "file", "d")

    found = {path.relative_to(ended.folder).as_posix(): path for path in ended.folder.rglob("*") if path.is_file()}
    assert ended.outcome.is_success
    assert found.keys() == {"in/deep/f"}
    assert (ended.folder / "way/f").read_text() == "made\n"
    assert "'out' of the container was left out" in ended.notes


async def test_a_task_reaches_its_services_in_a_network_that_this_machine_does_not(bench: Bench) -> None:
    serve = ("sh", "-c", "sleep 1; mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www")
    web = ServiceSpec(name="web", image=IMAGE, command=serve, ready=ReadySpec(port=8080))

    assert (await bench.run(spec("wget -q -O - http://web:8080/", services=(web,)))).text == "served\n"


async def test_a_stop_lets_the_running_command_end_by_itself(bench: Bench) -> None:
    sink = CollectingSink()
    run = await bench.start(
        spec("sh -c 'trap \"echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.1; done'"), sink
    )
    await sink.first_write.wait()

    async with asyncio.timeout(40):
        await bench.executor.stop(run, 60, Reason.CANCELLED)

    assert (await bench.executor.wait(run)).reason is Reason.CANCELLED
    await bench.executor.cleanup(run)
    assert sink.text() == b"ready\nsaved\n"


async def test_that_a_container_took_too_much_memory_is_learnt_from_the_kernel(bench: Bench) -> None:
    for _ in range(5):  # the kernel tells of some kills only where many are killed at once
        ended = await bench.run(spec("x=x; while :; do x=$x$x; done", container={"memory_limit": "16Mi"}))
        if ended.outcome.reason is Reason.OUT_OF_MEMORY:
            break

    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.OUT_OF_MEMORY, 137)
    assert "16Mi" in (ended.outcome.message or "")


async def test_an_image_that_cannot_run_the_task_is_an_error_of_its_own(bench: Bench) -> None:
    with pytest.raises(ImageError, match="cannot run this"):
        await bench.run(spec(container={"entrypoint": ("/no/such/program",)}))


async def test_the_warden_finds_and_ends_the_containers_of_a_life(engine: TestEngine) -> None:
    labels = {"formicary.job": "j", manifest.ANT_LABEL: "ant-1@7"}
    config = json.dumps({"Image": IMAGE, "Cmd": ["sleep", "300"], "Labels": labels}).encode()
    made = engine.call("POST", "/containers/create", config, **{"Content-Type": "application/json"})
    engine.call("POST", f"/containers/{made['Id']}/start")

    assert await asyncio.to_thread(remove_containers, engine.url, ["ant-1@7"], 10.0)

    assert engine.containers() == []
