"""What a task may have of the machine and of the engine, and what only where the ant allows it."""

import asyncio
from pathlib import Path

import pytest

from executors.errors import ExecutorError, SpecRefusedError
from executors.specs import DockerSpec, ServiceSpec, VolumeSpec
from executors.testing import RecordingGuard
from tests.engines import IMAGE, TestEngine, needs_engine
from tests.integration.docker.conftest import MakeBench, spec
from tests.integration.docker.proxy import Proxy

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that the ant allows, beside one that it does not."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("of the machine")
    shared = tmp_path / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "sub/a").write_text("for tasks")
    return shared


def mounting(path: Path | str, script: str = "cat /in/*") -> DockerSpec:
    return spec(script, container={"volumes": (VolumeSpec(mount_path="/in", host_path=str(path)),)})


async def test_a_path_of_the_machine_is_mounted_only_below_an_allowed_one(make_bench: MakeBench, shared: Path) -> None:
    with pytest.raises(SpecRefusedError, match=r"volumes\[0\].host_path.*allows no path"):
        await (await make_bench()).start(mounting(shared / "sub"))

    bench = await make_bench(docker_host_paths=(shared,))

    assert (await bench.run(mounting(shared / "sub"))).text == "for tasks"
    for outside in (shared / "../secret", shared.parent / "secret", "/", shared.parent / "shared-not"):
        with pytest.raises(SpecRefusedError, match=str(shared)):
            await bench.start(mounting(outside))


async def test_a_link_that_a_task_left_in_an_allowed_folder_leads_nowhere(make_bench: MakeBench, shared: Path) -> None:
    bench = await make_bench(docker_host_paths=(shared,))
    await bench.run(mounting(shared, f"ln -s {shared.parent}/secret /in/way; ln -s sub /in/inner"))
    assert (shared / "way/key").exists()

    for path in (shared / "way", shared / "way/key"):
        with pytest.raises(SpecRefusedError, match=r"way.* is /.*secret.* not allowed"):
            await bench.start(mounting(path))
    assert (await bench.run(mounting(shared / "inner"))).text == "for tasks"


async def test_a_folder_that_becomes_a_link_before_the_start_is_not_mounted(
    make_bench: MakeBench, shared: Path
) -> None:
    class Swapping(RecordingGuard):
        async def admit(self) -> None:
            (shared / "sub").rename(shared / "old")
            (shared / "sub").symlink_to(shared.parent / "secret")

    bench = await make_bench(docker_host_paths=(shared,))
    docker = mounting(shared / "sub")

    with pytest.raises(SpecRefusedError, match="is not allowed"):
        await bench.run(docker, attempt=bench.attempt(docker, Swapping()))


async def test_an_allowed_folder_may_itself_be_a_link(make_bench: MakeBench, shared: Path) -> None:
    (shared.parent / "link").symlink_to(shared)
    bench = await make_bench(docker_host_paths=(shared.parent / "link",))

    assert (await bench.run(mounting(shared.parent / "link/sub"))).text == "for tasks"


async def test_an_engine_elsewhere_mounts_only_exactly_what_is_allowed(
    make_bench: MakeBench, engine: TestEngine, shared: Path
) -> None:
    async with Proxy(engine.url) as proxy:
        bench = await make_bench(docker_host=proxy.url, docker_host_paths=(shared / "sub", shared.parent))

        assert (await bench.run(mounting(shared / "sub"))).text == "for tasks"
        with pytest.raises(SpecRefusedError, match="is on another machine"):
            await bench.start(mounting(shared))
        await bench.executor.close()


async def test_what_the_ant_cannot_see_is_mounted_only_exactly_as_it_is_allowed(
    make_bench: MakeBench, shared: Path
) -> None:
    bench = await make_bench(docker_host_paths=(shared, shared / "later"))

    with pytest.raises(SpecRefusedError, match="not there, or not for it to see"):
        await bench.start(mounting(shared / "missing"))
    with pytest.raises(ExecutorError, match="bind source path does not exist"):
        await bench.run(mounting(shared / "later"))


async def test_volumes_of_the_engine_are_mounted_only_where_their_names_are_allowed(
    make_bench: MakeBench, engine: TestEngine
) -> None:
    strict = await make_bench()
    bench = await make_bench(docker_volumes=("cache-*", "data"))
    volume = VolumeSpec(mount_path="/kept", volume="cache-1")
    try:
        docker = spec("touch /kept/a; ls /kept", container={"volumes": (volume,)})
        service = ServiceSpec(name="db", image=IMAGE, command=("sleep", "60"), volumes=(volume,))

        with pytest.raises(SpecRefusedError, match=r"container.volumes\[0\].volume: volume 'cache-1'.*VOLUMES.* none"):
            await strict.start(docker)
        with pytest.raises(SpecRefusedError, match=r"services\[0\].volumes\[0\].volume"):
            await strict.start(spec("true", services=(service,)))
        assert (await bench.run(docker)).text == "a\n"
        await bench.executor.close()
    finally:
        engine.call("DELETE", "/volumes/cache-1")
    for other in ("database", "Data", "x-cache-1"):
        with pytest.raises(SpecRefusedError, match="allows cache-\\*, data"):
            await bench.start(spec("true", container={"volumes": (VolumeSpec(mount_path="/x", volume=other),)}))


@pytest.mark.parametrize("name", ["/b", "a/b", "..", "a:ro", "a\0"])
async def test_what_is_no_name_is_no_volume(make_bench: MakeBench, name: str) -> None:
    bench = await make_bench(docker_volumes=("*",))
    with pytest.raises(SpecRefusedError, match=r"volumes\[0\].volume: .* is no name"):
        await bench.start(spec("true", container={"volumes": (VolumeSpec(mount_path="/x", volume=name),)}))


async def test_networks_of_the_engine_are_joined_only_where_their_names_are_allowed(
    make_bench: MakeBench, engine: TestEngine
) -> None:
    made = engine.call("POST", "/networks/create", b'{"Name": "backend"}', **{"Content-Type": "application/json"})
    docker = spec("ls /sys/class/net", container={"network": "backend"})
    service = ServiceSpec(name="db", image=IMAGE, command=("sleep", "60"))
    with_service = spec("ls /sys/class/net", container={"network": "backend"}, services=(service,))
    try:
        bench = await make_bench(docker_networks=("backend",))
        assert (await bench.run(docker)).text == "eth0\nlo\n"
        assert (await bench.run(with_service)).text == "eth0\neth1\nlo\n"
        for name in ("backend", made["Id"], made["Id"][:12]):
            with pytest.raises(SpecRefusedError, match=r"container.network: network .*FORMICARY_DOCKER_NETWORKS"):
                await (await make_bench()).start(spec("true", container={"network": name}))
        await bench.executor.close()
    finally:
        engine.call("DELETE", "/networks/backend")


@pytest.mark.parametrize(
    "network", ["host", "container:other", "ns:/proc/1/ns/net", "slirp4netns:allow_host_loopback=1"]
)
async def test_networks_of_the_machine_and_of_other_containers_need_all_rights(
    make_bench: MakeBench, network: str
) -> None:
    bench = await make_bench(docker_networks=(network,))
    with pytest.raises(SpecRefusedError, match="FORMICARY_DOCKER_PRIVILEGED"):
        await bench.start(spec("true", container={"network": network}))


async def test_a_task_without_a_network_has_none_and_one_without_a_word_has_the_engines(make_bench: MakeBench) -> None:
    bench = await make_bench()
    ended = await asyncio.gather(
        *(bench.run(spec("ls /sys/class/net", container={"network": name})) for name in ("none", "bridge", ""))
    )
    assert [each.text for each in ended] == ["lo\n", "eth0\nlo\n", "eth0\nlo\n"]


@pytest.mark.parametrize(
    ("container", "script", "said"),
    [
        ({"devices": ("/dev/null:/dev/own",)}, "ls /dev/own", "/dev/own\n"),
        ({"network": "host"}, "[ -d /sys/class/net/lo ] && ls /sys/class/net | wc -l", None),
    ],
)
async def test_rights_over_the_machine_are_had_only_where_the_ant_allows_them(
    make_bench: MakeBench, container: dict[str, object], script: str, said: str | None
) -> None:
    docker = spec(script, container=container)

    with pytest.raises(SpecRefusedError, match="FORMICARY_DOCKER_PRIVILEGED"):
        await (await make_bench()).start(docker)
    ended = await (await make_bench(docker_privileged=True)).run(docker)
    assert ended.outcome.is_success
    assert said is None or ended.text == said
