"""What a container runs to have its big files moved: which ones it looks at, and that it is heard of meanwhile."""

import asyncio
import hashlib
import os
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from executors.kubernetes.direct import _DIGEST, _FIND
from executors.kubernetes.volumes import HOME_PATH

#: Within which a command ends that has nothing to do, in seconds; its signs of life come less often.
SOON_S = 20


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "pid").touch()
    return tmp_path / "work"


async def run(script: str, work: Path, *words: str, path: Path | None = None) -> Process:
    """Begins a script in a working directory, with a folder of programs before all others."""
    text = script.replace(HOME_PATH, str(work.parent))
    programs = {"PATH": f"{path}:{os.environ['PATH']}"} if path is not None else None
    return await asyncio.create_subprocess_exec(
        "sh", "-c", text, "direct", str(work), *words, env=programs, stdout=PIPE, stderr=PIPE
    )


async def test_only_files_that_a_url_can_take_are_looked_at(work: Path) -> None:
    for size_bytes in (9, 10, 5 * 1024**3, 5 * 1024**3 + 1):
        with (work / str(size_bytes)).open("wb") as file:
            file.truncate(size_bytes)  # takes no room

    process = await run(_FIND, work, "9", str(5 * 1024**3), ".")
    async with asyncio.timeout(SOON_S):
        said, _ = await process.communicate()

    assert sorted(said.decode().split()) == ["././10", f"././{5 * 1024**3}"]


async def test_a_container_that_takes_its_time_for_a_digest_is_heard_of_meanwhile(work: Path, tmp_path: Path) -> None:
    (work / "big").write_bytes(b"content")
    gate, programs = tmp_path / "gate", tmp_path / "programs"
    os.mkfifo(gate)
    programs.mkdir()
    slow = programs / "sha256sum"
    slow.write_text(f"#!/bin/sh\nread word <{gate}\nexec {_program('sha256sum')}\n")
    slow.chmod(0o755)

    process = await run(_DIGEST.replace("sleep 30", "sleep 0.1"), work, "big", path=programs)
    assert process.stderr is not None
    assert await process.stderr.readline() == b"\n"
    await asyncio.to_thread(gate.write_text, "go on\n")
    said, _ = await process.communicate()

    assert said.decode() == f"{hashlib.sha256(b'content').hexdigest()} 7 - big\n"
    assert process.returncode == 0


async def test_the_end_of_a_digest_is_told_at_once(work: Path) -> None:
    process = await run(_DIGEST, work, "absent")
    async with asyncio.timeout(SOON_S):
        assert await process.communicate() == (b"", b"")


def _program(name: str) -> Path:
    return next(path for folder in os.environ["PATH"].split(":") if (path := Path(folder, name)).exists())
