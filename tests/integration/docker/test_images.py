"""Images come from a registry: with a login, with their progress in the log, once for all who want them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executors.errors import ImageError
from executors.specs import RegistrySpec
from tests.engines import TestEngine, needs_engine
from tests.integration.docker.conftest import MakeBench, spec
from tests.integration.docker.registry import PASSWORD, USER, Registry

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

LOGIN = RegistrySpec(username=USER, password=PASSWORD)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(padding_bytes=3_000_000)
    yield registry
    await registry.stop()


@pytest.fixture
async def image(registry: Registry, engine: TestEngine) -> AsyncIterator[str]:
    """Returns the name of an image that the engine does not have."""
    name = f"{await registry.start()}/team/app:1"
    yield name
    await asyncio.to_thread(engine.call, "DELETE", f"/images/{name}?force=1")


async def test_a_pull_with_a_login_is_told_in_the_log_and_done_once(
    make_bench: MakeBench, registry: Registry, image: str
) -> None:
    bench = await make_bench(docker_progress_s=0.0)
    docker = spec("echo $FROM_IMAGE", container={"image": image, "registry": LOGIN})

    ended = await asyncio.gather(*(bench.run(docker) for _ in range(3)))

    assert [each.text for each in ended] == ["yes\n"] * 3
    notes = next(each.notes for each in ended if each.notes)
    assert notes.startswith(f"pulling image {image}\n")
    assert "1 of 1 layers" in notes
    assert f"pulled image {image} in " in notes
    assert registry.manifests_sent == 1
    assert PASSWORD not in notes


async def test_the_registrys_refusal_is_an_error_that_says_whose_login_it_was(
    make_bench: MakeBench, image: str
) -> None:
    bench = await make_bench()
    wrong = RegistrySpec(username="mallory", password="wr0ng-secret")

    with pytest.raises(ImageError, match="refuses user mallory") as caught:
        await bench.run(spec("true", container={"image": image, "registry": wrong}))
    with pytest.raises(ImageError, match=r"give container\.registry"):
        await bench.run(spec("true", container={"image": image}))

    assert "wr0ng-secret" not in str(caught.value)


async def test_a_login_of_the_ants_user_counts_where_the_task_has_none(
    make_bench: MakeBench, image: str, tmp_path: Path
) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {image.partition("/")[0]: {"auth": auth}}}))
    bench = await make_bench(docker_logins=tmp_path / "config.json")

    assert (await bench.run(spec("true", container={"image": image}))).outcome.is_success


async def test_always_asks_the_registry_again(make_bench: MakeBench, registry: Registry, image: str) -> None:
    bench = await make_bench()
    container = {"image": image, "registry": LOGIN, "image_pull_policy": "Always"}

    for _ in range(2):
        await bench.run(spec("true", container=container))
    await registry.stop()

    assert registry.manifests_sent >= 1
    with pytest.raises(ImageError, match="cannot be pulled"):
        await bench.run(spec("true", container=container))
    assert (await bench.run(spec("true", container={"image": image}))).outcome.is_success
