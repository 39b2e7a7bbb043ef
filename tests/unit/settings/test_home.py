"""The home folder has one holder, and says who."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from formicary.errors import HomeHeldError, InvalidInputError
from formicary.home import HomeLock, read_holder


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    with HomeLock(tmp_path / "home", "up") as lock:
        lock.introduce("http://127.0.0.1:7777")
        with pytest.raises(HomeHeldError) as caught:
            HomeLock(tmp_path / "home", "run").acquire()

    assert caught.value.holder == {"pid": str(os.getpid()), "mode": "up", "listen": "http://127.0.0.1:7777"}


def test_a_shorter_introduction_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    with HomeLock(tmp_path, "up") as lock:
        lock.introduce("http://127.0.0.1:7777" * 10)
        lock.introduce("")
        assert read_holder(tmp_path)["listen"] == ""


def test_a_released_home_can_be_taken_again(tmp_path: Path) -> None:
    first = HomeLock(tmp_path, "up")
    first.release()
    first.acquire()
    first.release()
    first.release()

    with HomeLock(tmp_path, "run"):
        assert read_holder(tmp_path)["mode"] == "run"


def test_a_killed_holder_leaves_the_home_free(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from formicary.home import HomeLock\n"
        "HomeLock(pathlib.Path(sys.argv[1]), 'up').acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(HomeHeldError):
            HomeLock(tmp_path, "run").acquire()
        holder.kill()
        holder.wait()

    with HomeLock(tmp_path, "run"):
        assert read_holder(tmp_path)["pid"] == str(os.getpid())


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="FORMICARY_HOME"):
        HomeLock(tmp_path / "file" / "home", "up").acquire()
