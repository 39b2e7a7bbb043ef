"""Files that go in and come out where volumes are mounted."""

from pathlib import Path
from typing import Any

import pytest

from executors.errors import CollectFailedError, SpecRefusedError
from executors.specs import EmptyDirSpec, VolumeSpec
from tests.engines import TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, MakeBench, spec

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

_SCRIPT = (
    "cat in; echo out > out; mkdir -p d; echo deep > d/deep",
    'echo r > "$FORMICARY_RESULT_DIR/r"; echo k=v > "$FORMICARY_OUTPUT"',
)


def memory(mount_path: str) -> VolumeSpec:
    return VolumeSpec(mount_path=mount_path, empty_dir=EmptyDirSpec(medium="Memory"))


@pytest.mark.parametrize("kind", ["volume", "empty_dir", "host_path"])
@pytest.mark.parametrize("at", ["/formicary/work", "/formicary/work/d", "/srv"])
async def test_files_go_in_and_come_out_of_volumes(
    make_bench: MakeBench, engine: TestEngine, tmp_path: Path, kind: str, at: str
) -> None:
    (tmp_path / "host").mkdir()
    sources: dict[str, Any] = {"volume": "files", "empty_dir": EmptyDirSpec(), "host_path": f"{tmp_path}/host"}
    bench = await make_bench(docker_volumes=("files",), docker_host_paths=(tmp_path / "host",))
    volume = VolumeSpec(mount_path=at, **{kind: sources[kind]})
    working_dir = "/srv/deeper" if at == "/srv" else ""
    docker = spec(*_SCRIPT, container={"volumes": (volume,), "working_dir": working_dir})
    attempt = bench.attempt(docker)
    (attempt.folder.path() / "in").write_text("brought\n")

    try:
        ended = await bench.run(docker, "out", "d", attempt=attempt)
    finally:
        await bench.executor.close()
        if kind == "volume":
            engine.call("DELETE", "/volumes/files")

    assert ended.text == "brought\n"
    assert (ended.folder / "out").read_text() == "out\n"
    assert (ended.folder / "d/deep").read_text() == "deep\n"
    assert (ended.attempt.folder.result_dir / "r").read_text() == "r\n"
    assert ended.attempt.folder.output_file.read_text() == "k=v\n"


@pytest.mark.parametrize(
    "at", ["/", "/formicary", "//formicary/", "/formicary/out", "/formicary/./out/result", "/formicary/script.sh"]
)
async def test_nothing_is_mounted_over_formicarys_own_files(bench: Bench, at: str) -> None:
    volume = VolumeSpec(mount_path=at, empty_dir=EmptyDirSpec())
    with pytest.raises(SpecRefusedError, match=r"container.volumes\[0\].mount_path: .* own files; mount it elsewhere"):
        await bench.start(spec("true", container={"volumes": (volume,)}))


@pytest.mark.parametrize(("at", "working_dir"), [("/formicary/work", ""), ("/srv", "/srv/app"), ("/srv", "/srv")])
async def test_the_working_directory_is_not_in_memory(bench: Bench, at: str, working_dir: str) -> None:
    with pytest.raises(SpecRefusedError, match=r"volumes\[0\].empty_dir.medium: .* leave out Memory"):
        await bench.start(spec("true", container={"volumes": (memory(at),), "working_dir": working_dir}))


async def test_files_in_memory_are_missed_aloud(bench: Bench) -> None:
    docker = spec("echo x > fast/x; echo y > y", container={"volumes": (memory("/formicary/work/fast"),)})

    with pytest.raises(CollectFailedError, match=r"fast/x lies in memory, in the volume at /formicary/work/fast"):
        await bench.run(docker, "fast/x")
    ended = await bench.run(docker, "**")

    assert (ended.folder / "y").read_text() == "y\n"
    assert "the volume at /formicary/work/fast was in memory" in ended.notes


async def test_a_folder_in_memory_may_be_the_temporary_one(bench: Bench) -> None:
    docker = spec(
        'df "$TMPDIR" | tail -1; echo r > "$FORMICARY_RESULT_DIR/r"', container={"volumes": (memory("/formicary/tmp"),)}
    )

    ended = await bench.run(docker)

    assert "tmpfs" in ended.text
    assert (ended.attempt.folder.result_dir / "r").exists()


async def test_results_are_found_among_any_number_of_other_files(bench: Bench) -> None:
    many = "i=0; mkdir /many; while [ $i -lt 3000 ]; do : > /many/a-file-with-a-name-$i; i=$((i+1)); done"
    odd = 'mkdir -p "/x\\"/formicary/out"; : > "/x\\"/formicary/out/output"'

    with_results = await bench.run(spec(many, odd, 'echo r > "$FORMICARY_RESULT_DIR/r"'))
    without = await bench.run(spec(odd))

    assert (with_results.attempt.folder.result_dir / "r").exists()
    assert not without.attempt.folder.output_file.exists()
