"""Files that go into a container and come out of it."""

import asyncio
from pathlib import Path

import pytest

from executors.docker.collecting import fixed_places
from tests.engines import needs_engine
from tests.integration.docker.conftest import Bench, peak_bytes, spec

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

GIGABYTE = 2**30
#: What moving a gigabyte each way may add to the memory of this process, in bytes.
ROOM_BYTES = 100 * 2**20


async def test_what_the_folder_holds_goes_in_and_what_the_paths_name_comes_out(bench: Bench) -> None:
    docker = spec(
        "cat deep/er/in.txt",
        "ls -l run.sh | cut -c1-10",
        "mkdir -p dist/x",
        "echo a > dist/x/a.bin; chmod 750 dist/x/a.bin; echo b > b",
    )
    attempt = bench.attempt(docker)
    folder = attempt.folder.path()
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/in.txt").write_text("brought\n")
    (folder / "run.sh").write_text("")
    (folder / "run.sh").chmod(0o755)

    ended = await bench.run(docker, "dist/**/*.bin", "missing/*", attempt=attempt)

    assert ended.text == "brought\n-rwxr-xr-x\n"
    assert (folder / "dist/x/a.bin").read_text() == "a\n"
    assert (folder / "dist/x/a.bin").stat().st_mode & 0o777 == 0o750
    assert not (folder / "b").exists()


async def test_results_and_outputs_come_out_and_nothing_where_there_are_none(bench: Bench) -> None:
    script = 'echo r > "$FORMICARY_RESULT_DIR/r"; mkdir "$FORMICARY_RESULT_DIR/d"; echo k=v > "$FORMICARY_OUTPUT"'
    full, empty = await bench.run(spec(script)), await bench.run(spec("true"))

    assert (full.attempt.folder.result_dir / "r").read_text() == "r\n"
    assert (full.attempt.folder.result_dir / "d").is_dir()
    assert full.attempt.folder.output_file.read_text() == "k=v\n"
    assert not empty.attempt.folder.is_made


@pytest.mark.parametrize("user", ["1234:1234", "nobody"])
async def test_a_user_other_than_root_reads_what_came_and_writes_its_own(bench: Bench, user: str) -> None:
    docker = spec("id -u; cat in.txt; echo more >> in.txt; touch own $FORMICARY_RESULT_DIR/r", container={"user": user})
    attempt = bench.attempt(docker)
    (attempt.folder.path() / "in.txt").write_text("brought\n")

    ended = await bench.run(docker, "own", "in.txt", attempt=attempt)

    assert ended.text.split()[1:] == ["brought"]
    assert ended.text.split()[0] != "0"
    assert (ended.folder / "in.txt").read_text() == "brought\nmore\n"
    assert (ended.folder / "own").exists()


async def test_the_working_directory_can_be_the_images_own(bench: Bench) -> None:
    docker = spec("pwd; cat in.txt; echo x > out.txt", container={"working_dir": "/usr/src/app"})
    attempt = bench.attempt(docker)
    (attempt.folder.path() / "in.txt").write_text("brought\n")

    ended = await bench.run(docker, "**", attempt=attempt)

    assert ended.text == "/usr/src/app\nbrought\n"
    assert (ended.folder / "out.txt").read_text() == "x\n"


async def test_nothing_that_comes_out_leads_out(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the ant")
    script = (
        f"mkdir d; ln -s {tmp_path}/secret d/absolute; ln -s ../../../../secret d/climbing; echo ok > d/file",
        "ln -s file d/inside; ln d/file d/hard; mkfifo d/pipe; ln -s .. d/up; ln -s d/up/.. around",
    )

    ended = await bench.run(spec(*script), "**")

    assert sorted(path.name for path in (ended.folder / "d").iterdir()) == ["file", "hard", "inside", "up"]
    assert (ended.folder / "d/inside").read_text() == "ok\n"
    assert all(path.resolve().is_relative_to(ended.folder) for path in ended.folder.rglob("*"))
    assert all(f"'{name}'" in ended.notes for name in ("d/absolute", "d/climbing", "around"))


async def test_no_chain_of_links_brings_what_lies_elsewhere_in_the_container(bench: Bench) -> None:
    script = (
        "mkdir /else d; echo secret > /else/f",
        "ln -s /else out; ln -s out again; ln -s ../out d/again; ln -s d/again/f file; mkdir e; ln -s loop e/loop",
    )

    ended = await bench.run(spec(*script), "again/f", "out/f", "again", "d/again/f", "d/again", "file", "e", "file/x")

    assert [path for path in ended.folder.rglob("*") if path.is_file()] == []
    assert not any(path.is_symlink() for path in ended.folder.rglob("*"))
    assert "'file' of the container was left out" in ended.notes


@pytest.mark.parametrize("paths", [("dist", "cur"), ("**",)])
async def test_what_links_within_the_working_directory_lead_to_comes_along(
    bench: Bench, paths: tuple[str, ...]
) -> None:
    script = (
        "mkdir -p src/deep dist releases/1; echo made > src/deep/f; echo one > releases/1/one; ln -s deep src/in",
        "ln -s ../src/in/f dist/chain; ln -s $PWD/src/deep/f dist/absolute; ln -s ../src/in/../deep/f dist/winding",
        "ln -s releases/1 cur",
    )

    ended = await bench.run(spec(*script), *paths)

    assert [(ended.folder / "dist" / name).read_text() for name in ("chain", "absolute", "winding")] == ["made\n"] * 3
    assert (ended.folder / "cur/one").read_text() == "one\n"
    assert all(path.resolve().is_relative_to(ended.folder) for path in ended.folder.rglob("*"))
    assert ended.notes == ""


async def test_a_working_directory_may_be_reached_through_links(bench: Bench) -> None:
    script = (
        "mkdir -p /real/app/d; ln -s /real /way; ln -s app /real/app2; cd /way/app2; echo x > d/f; ln -s /way/app/d l",
        "rm -r /formicary/work; ln -s /way/app2 /formicary/work",
    )

    everything, link = await bench.run(spec(*script), "**"), await bench.run(spec(*script), "l")

    assert (everything.folder / "d/f").read_text() == (everything.folder / "l/f").read_text() == "x\n"
    assert (link.folder / "l/f").read_text() == "x\n"


async def test_what_the_task_removed_or_replaced_is_gone_here_too(bench: Bench) -> None:
    docker = spec("rm gone; rm -r tree; ln -s /etc tree; rm file; mkdir file; echo new > file/x")
    attempt = bench.attempt(docker)
    for name in ("gone", "file"):
        (attempt.folder.path() / name).write_text("brought\n")
    (attempt.folder.path() / "tree").mkdir()

    ended = await bench.run(docker, "gone", "tree", "file/x", attempt=attempt)

    assert [path.relative_to(ended.folder).as_posix() for path in ended.folder.rglob("*")] == ["file", "file/x"]


@pytest.mark.parametrize("climb", ["", "../../../../../../../../.."])
async def test_a_path_outside_of_the_working_directory_touches_nothing_of_the_ant(
    bench: Bench, tmp_path: Path, climb: str
) -> None:
    target = tmp_path / "target"
    target.write_text("of the ant")

    await bench.run(spec(f"mkdir -p {tmp_path}; echo evil > {target}"), f"{climb}{target}")

    assert target.read_text() == "of the ant"


async def test_an_image_without_a_shell_leaves_results_too(bench: Bench) -> None:
    docker = spec(container={"entrypoint": ("touch",), "command": ("/formicary/out/result/made", "here")})

    ended = await bench.run(docker, "here")

    assert (ended.attempt.folder.result_dir / "made").exists()
    assert (ended.folder / "here").exists()


@pytest.mark.timeout(300)
async def test_a_gigabyte_goes_in_and_out_with_bounded_memory(bench: Bench) -> None:
    docker = spec("stat -c %s big; echo x >> big")
    attempt = bench.attempt(docker)
    big = attempt.folder.path() / "big"
    with big.open("wb") as file:
        file.truncate(GIGABYTE)
    before = peak_bytes()

    ended = await bench.run(docker, "big", attempt=attempt, patience_s=240)

    assert ended.text == f"{GIGABYTE}\n"
    assert big.stat().st_size == GIGABYTE + 2
    assert peak_bytes() - before < ROOM_BYTES
    big.unlink()


async def test_ten_attempts_move_their_files_at_once_without_mixing_them(bench: Bench) -> None:
    async def one(number: int) -> str:
        docker = spec("cat in > out")
        attempt = bench.attempt(docker)
        (attempt.folder.path() / "in").write_text(str(number))
        ended = await bench.run(docker, "out", attempt=attempt)
        return (ended.folder / "out").read_text()

    assert await asyncio.gather(*(one(number) for number in range(10))) == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("paths", "places"),
    [
        ((), []),
        (("a.txt",), ["a.txt"]),
        (("dist/*.whl", "dist/sub/x"), ["dist"]),
        (("**/*.xml", "a"), ["."]),
        (("./a/", "b/[x]/c"), ["a", "b"]),
        (("a", "ab/c"), ["a", "ab/c"]),
        ((".",), ["."]),
    ],
)
def test_only_what_can_hold_a_match_is_fetched(paths: tuple[str, ...], places: list[str]) -> None:
    assert fixed_places(paths) == places
