"""Kills for want of memory are told from other kills by the kernel's counter."""

from pathlib import Path

import pytest

from executors.base import Reason
from executors.memory_limits import count_oom_kills, oom_counter_file
from executors.options import ExecutorOptions
from executors.shell import ShellExecutor
from executors.specs import ShellSpec
from executors.testing import CollectingSink, make_attempt


@pytest.mark.parametrize("text", ["low 0\noom 3\noom_kill 2\noom_group_kill 9\n", "under_oom 0\noom_kill 2\n"])
def test_the_counter_is_read_from_either_kind_of_cgroup(tmp_path: Path, text: str) -> None:
    file = tmp_path / "memory.events"
    file.write_text(text)

    assert count_oom_kills(file) == 2


def test_a_file_that_does_not_tell_counts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"

    assert count_oom_kills(file) is None
    file.write_text("low 0\n")
    assert count_oom_kills(file) is None
    assert count_oom_kills(None) is None


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="only Linux counts")
def test_this_machine_has_a_counter() -> None:
    assert count_oom_kills(oom_counter_file()) is not None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo oom_kill 8 >{counter}; kill -9 $$", Reason.OUT_OF_MEMORY),
        ("echo oom_kill 8 >{counter}; sh -c 'kill -9 $$'", Reason.OUT_OF_MEMORY),
        ("kill -9 $$", Reason.SIGNALLED),
        ("echo oom_kill 8 >{counter}; exit 1", Reason.EXITED),
    ],
)
async def test_a_kill_counts_as_out_of_memory_only_when_the_counter_rose(
    tmp_path: Path, script: str, reason: Reason
) -> None:
    counter = tmp_path / "memory.events"
    write(counter, "oom_kill 7\n")
    executor = ShellExecutor(ExecutorOptions(), oom_counter=counter)
    spec = ShellSpec(script=(script.format(counter=counter),))

    run = await executor.start(make_attempt(spec, tmp_path / "work"), CollectingSink())

    assert (await executor.wait(run)).reason is reason
    await executor.cleanup(run)


def write(file: Path, text: str) -> None:
    file.write_text(text)
