"""Full disks, endless lines, results that cannot travel, many slots."""

import os
import resource
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant.lines import CUT_MARK, MAX_LINE_BYTES
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.ids import AntId
from formicary.model.definition import ArtifactsPolicy
from formicary.testing.owner import ScriptedOwner, dummy, python, shell

AntMaker = Callable[..., Awaitable[Ant]]
_MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_disk_that_fills_while_artifacts_are_stored_fails_the_task(
    small_disk: Path, bus: Bus, tmp_path: Path
) -> None:
    store = LocalStore(small_disk)
    await store.open()
    config = AntConfig(id=AntId("ant-1"), home=tmp_path / "home")
    ant = Ant(bus, make_executors(("SHELL",)), store, config, SystemClock())
    await ant.start()
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    policy = ArtifactsPolicy(paths=("*",))
    script = "for n in 1 2 3; do head -c 500000 /dev/urandom > f$n; done"
    end = await owner.run(shell(script, artifacts=policy))
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "artifact f" in (end.error_message or "")
    assert (await owner.run(shell("echo 1 > f", artifacts=policy), task_no=1)).is_success
    await ant.stop()


async def test_a_line_of_200_mb_is_cut_limited_and_takes_bounded_memory(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(log_limit_bytes=2 * _MIB)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.run(dummy(), task_no=1)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = await owner.run(shell("head -c 200000000 /dev/zero | tr '\\0' x; echo; echo '::set-output name=a::1'"))
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert (end.is_success, end.outputs) == (True, {"a": 1})
    assert grown_kib < 40 * 1024
    lines = [text for *_, text in await owner.lines()]
    assert all(len(line) <= MAX_LINE_BYTES + len(CUT_MARK) for line in lines)
    assert sum(map(len, lines)) < 2 * _MIB + 2 * MAX_LINE_BYTES
    assert "log limit" in lines[-1]


async def test_more_files_than_a_result_can_name_fail_the_task(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant()
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    name = "n" * 200
    script = f"i=0; mkdir d; cd d; while [ $i -lt 1700 ]; do : > {name}$i; i=$((i+1)); done"
    end = await owner.run(shell(script, artifacts=ArtifactsPolicy(paths=("d/*",))))
    assert end.error_code == "ERR_ARTIFACT"
    assert "too many" in (end.error_message or "")


async def test_a_thousand_slots_run_at_once(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1000)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(*(owner.dispatch(python("asyncio:sleep", 0.5), number) for number in range(1000)))
    ends = [await owner.finished(number) for number in range(1000)]
    started = [end.started_at for end in ends if end.started_at is not None]
    assert max(started) < min(end.finished_at for end in ends)


async def test_stop_is_safe_before_the_start_and_twice(bus: Bus, store: LocalStore, tmp_path: Path) -> None:
    config = AntConfig(id=AntId("ant-1"), home=tmp_path / "home")
    ant = Ant(bus, make_executors(("DUMMY",)), store, config, SystemClock())
    await ant.stop()
    await ant.start()
    await ant.stop()
    await ant.stop()


async def test_folders_that_a_dead_ant_left_are_removed_at_the_start(make_ant: AntMaker, tmp_path: Path) -> None:
    left = tmp_path / "home/ants/ant-1/work/dead-1/work"
    left.mkdir(parents=True)
    (left / "file").write_text("x")
    await make_ant()
    assert not left.exists()
