"""Folders as artifacts: one archive each, unpacked where the folder was."""

from pathlib import Path

import msgspec
import pytest

from formicary.artifacts.blobs import PREFIX
from formicary.artifacts.local import LocalStore
from formicary.events.orders import Fetch
from formicary.model.definition import ArtifactsPolicy
from formicary.model.jobs import ArtifactRef
from formicary.testing.owner import ScriptedOwner, shell

OUT = ArtifactsPolicy(paths=("out/",), exclude=("out/*.tmp",))
TREE = (
    "mkdir -p out/deep/empty; echo 1 > out/a; echo x > out/b.tmp; ln -s ../a out/deep/link",
    "printf '#!/bin/sh\\necho ran\\n' > out/run; chmod 755 out/run",
)


def fetched(*ends: tuple[ArtifactRef, ...]) -> tuple[Fetch, ...]:
    return tuple(Fetch("t", number, 1, refs) for number, refs in enumerate(ends))


async def test_a_folder_travels_whole(owner: ScriptedOwner) -> None:
    (ref,) = (await owner.run(shell(*TREE, artifacts=OUT))).artifacts
    assert (ref.name, ref.folder) == ("out.tar.zst", "out")

    look = ("out/run", "cat out/deep/link", "readlink out/deep/link", "find out | sort | tr '\\n' ' '; echo")
    end = await owner.run(shell(*look, fetches=fetched((ref,))), task_no=1)

    assert end.is_success, end.error_message
    lines = [text for *_, text in await owner.lines()]
    assert lines == ["ran", "1", "../a", "out out/a out/deep out/deep/empty out/deep/link out/run "]


async def test_equal_folders_are_stored_once_whenever_they_were_made(owner: ScriptedOwner, store: LocalStore) -> None:
    first = await owner.run(shell(*TREE, artifacts=OUT))
    second = await owner.run(shell(*TREE, "touch -d 2001-01-01 out/a", artifacts=OUT), task_no=1)
    assert first.artifacts == second.artifacts
    assert len([key async for key in store.list(PREFIX) if not key.endswith(".claim")]) == 1


async def test_later_folders_win_and_earlier_files_stay(owner: ScriptedOwner) -> None:
    scripts = ("echo first > out/a; echo first > out/b", "ln -s c out/a; echo second > out/c", "echo 3 > out/a")
    ends = [
        await owner.run(shell("mkdir out", script, artifacts=OUT), task_no=number)
        for number, script in enumerate(scripts)
    ]
    fetches = fetched(*(end.artifacts for end in ends))
    assert (await owner.run(shell("cat out/a out/b out/c", fetches=fetches), task_no=5)).is_success
    assert [text for *_, text in await owner.lines()] == ["3", "first", "second"]


@pytest.mark.parametrize("link", ["ln -s /etc/passwd out/x", "ln -s ../../secret out/x", "ln -s a/../.. out/x"])
async def test_a_symlink_out_of_the_folder_is_refused(owner: ScriptedOwner, link: str) -> None:
    end = await owner.run(shell("mkdir out", link, artifacts=OUT))
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "'out/x': is a symlink out of the folder" in (end.error_message or "")


async def test_no_folder_is_unpacked_through_a_symlink(owner: ScriptedOwner, tmp_path: Path) -> None:
    (ref,) = (await owner.run(shell(*TREE, artifacts=OUT))).artifacts
    policy = ArtifactsPolicy(paths=("d",))
    (link,) = (await owner.run(shell("mkdir -p d/real; ln -s real d/way", artifacts=policy), task_no=1)).artifacts
    through = msgspec.structs.replace(ref, folder="d/way")
    end = await owner.run(shell("true", fetches=fetched((link,), (through,))), task_no=2)
    assert end.error_code == "ERR_ARTIFACT"
    assert "through a symlink" in (end.error_message or "")


async def test_a_folder_of_10000_files_is_one_artifact(owner: ScriptedOwner) -> None:
    script = "mkdir out; cd out; i=0; while [ $i -lt 10000 ]; do echo $i > $i; i=$((i+1)); done"
    end = await owner.run(shell(script, artifacts=OUT))
    assert [ref.name for ref in end.artifacts] == ["out.tar.zst"]
    end = await owner.run(shell("test $(ls out | wc -l) = 10000", fetches=fetched(end.artifacts)), task_no=1)
    assert end.is_success


async def test_a_file_with_the_name_of_a_folders_archive_is_refused(owner: ScriptedOwner) -> None:
    policy = ArtifactsPolicy(paths=("out", "*.zst"))
    end = await owner.run(shell("mkdir out; echo 1 > out.tar.zst", artifacts=policy))
    assert "kept as a file and as the archive" in (end.error_message or "")
