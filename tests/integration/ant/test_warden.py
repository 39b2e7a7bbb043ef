"""The warden, with real processes: what an ant started does not outlive it."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from executors.dummy import DummyExecutor
from executors.errors import StartFailedError
from executors.specs import DummySpec
from formicary.ant.assignments import Assignment
from formicary.ant.config import AntConfig
from formicary.ant.warden import stat_fields
from formicary.ant.wardship import AttemptGuard, Wardship
from formicary.clock import SystemClock
from formicary.events.orders import Order
from formicary.events.tasks import TaskDispatched
from formicary.ids import AntId, Incarnation, JobId

_LONE_ANT = Path(__file__).with_name("lone_ant.py")
Process = asyncio.subprocess.Process
Start = Callable[..., Awaitable[Process]]

#: A child, a child in a session of its own, and a grandchild whose parents are gone; each says its pid.
_FORKS = """
echo $$ >> {file}
sleep 300 & echo $! >> {file}
setsid sh -c 'echo $$ >> {file}; exec sleep 300' &
sh -c 'setsid sh -c "echo \\$\\$ >> {file}; trap \\"\\" TERM; sleep 300; sleep 300" & exit'
wait
"""


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    processes: list[Process] = []

    async def start(script: str, lease_s: float = 0.0) -> Process:
        arguments = (str(_LONE_ANT), str(tmp_path / "home"), script, str(lease_s))
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_all_that_a_killed_ant_started_goes_with_it(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    ant = await start(_FORKS.format(file=file))
    pids = await _pids(file, 4)
    assert all(_lives(pid) for pid in pids)
    ant.kill()
    async with asyncio.timeout(40):
        await _until(lambda: not any(_lives(pid) for pid in pids))


async def test_the_next_ant_of_an_id_starts_only_when_the_work_of_the_former_is_gone(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    former = await start(_FORKS.format(file=file))
    pids = await _pids(file, 4)
    former.kill()
    successor = await start("true")
    assert await _line(successor) == "ready"
    assert not any(_lives(pid) for pid in pids)


async def test_work_that_outlived_ant_and_warden_is_ended_by_the_next_warden(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    former = await start(_FORKS.format(file=file))
    pids = await _pids(file, 4)
    warden = _warden_of(former.pid)
    os.kill(warden, signal.SIGSTOP)
    former.kill()
    os.kill(warden, signal.SIGKILL)
    assert any(_lives(pid) for pid in pids)
    successor = await start("true")
    assert await _line(successor) == "ready"
    assert not any(_lives(pid) for pid in pids)


async def test_an_ant_learns_which_lives_of_its_id_are_over(tmp_path: Path) -> None:
    config = AntConfig(id=AntId("ant-1"), home=tmp_path)
    lives: list[tuple[Incarnation, ...]] = []
    for number in range(10):
        wardship = Wardship(config, on_lapse=lambda _: None)
        await wardship.start()
        wardship.begin(Incarnation(f"ant-1@{number}"))
        lives.append(wardship.former)
        await wardship.close()
    assert lives[:3] == [(), ("ant-1@0",), ("ant-1@0", "ant-1@1")]
    assert lives[-1] == tuple(f"ant-1@{number}" for number in range(1, 9))


async def test_what_runs_elsewhere_starts_only_while_the_lease_holds(tmp_path: Path) -> None:
    config = AntConfig(id=AntId("ant-1"), home=tmp_path, lease_s=60.0, survives_process=True, broker_url="memory://")
    wardship = Wardship(config, on_lapse=lambda _: None)
    await wardship.start()
    lives = [Incarnation("ant-1@1"), Incarnation("ant-1@2")]
    orders = Order(job_type="j", task_type="t", method="DUMMY", spec=DummySpec(), timeout_s=1.0)
    guards = {
        (life, shard): AttemptGuard(wardship, Assignment(_dispatch(life, shard), orders, DummyExecutor()))
        for life in lives
        for shard in (3, 4)
    }

    async def allowed() -> list[tuple[Incarnation, int]]:
        found = []
        for key, guard in guards.items():
            with suppress(StartFailedError):
                await guard.allow()
                found.append(key)
        return found

    wardship.begin(lives[0])
    assert await allowed() == []
    wardship.prolong(lives[0], {3: SystemClock().boottime() + 60})
    assert await allowed() == [(lives[0], 3)]
    wardship.begin(lives[1])
    assert await allowed() == []
    await wardship.close()


def _dispatch(life: Incarnation, shard: int) -> TaskDispatched:
    raw = msgspec.Raw(b"")
    return TaskDispatched(
        job_id=JobId("job"), task_no=0, attempt=1, shard=shard, epoch=1, number=1, incarnation=life, order=raw
    )


async def test_a_second_ant_of_a_live_id_is_refused_and_told_who_holds_it(start: Start) -> None:
    first = await start("sleep 300")
    assert await _line(first) == "ready"
    second = await start("true")
    text = await _line(second)
    assert text.startswith("AntIdHeldError")
    assert f"process {first.pid} " in text


async def test_an_ant_whose_warden_is_gone_ends_its_work_and_leaves(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    ant = await start(f"echo $$ >> {file}; sleep 300")
    assert await _line(ant) == "ready"
    (pid,) = await _pids(file, 1)
    os.kill(_warden_of(ant.pid), signal.SIGKILL)
    async with asyncio.timeout(40):
        assert (await _line(ant)).startswith("WardenLostError")
        await ant.wait()
    assert not _lives(pid)


async def test_signals_of_the_terminal_do_not_end_the_warden(start: Start) -> None:
    ant = await start("sleep 300")
    assert await _line(ant) == "ready"
    warden = _warden_of(ant.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(warden, number)
    await asyncio.sleep(0)
    assert os.getsid(warden) == warden
    assert _lives(warden)


async def test_a_stopped_ant_is_killed_with_its_work_when_its_lease_ends(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    ant = await start(f"echo $$ >> {file}; sleep 300", lease_s=1.0)
    (pid,) = await _pids(file, 1)
    warden = _warden_of(ant.pid)
    ant.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(40):
        await _until(lambda: not _lives(pid))
        assert await ant.wait() == -signal.SIGKILL
    await _until(lambda: not _lives(warden))
    assert (tmp_path / "home/ants/ant-1.warden.log").read_text() == ""


async def test_a_stopped_ant_without_leases_keeps_its_work(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    ant = await start(f"echo $$ >> {file}; sleep 0.2; touch {tmp_path}/done; sleep 300")
    (pid,) = await _pids(file, 1)
    ant.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(40):
        await _until((tmp_path / "done").exists)
    assert _lives(pid)
    ant.send_signal(signal.SIGCONT)


async def test_an_ant_whose_functions_have_ended_outlives_its_lease_though_nobody_can_hear_what_they_said(
    tmp_path: Path,
) -> None:
    script = Path(__file__).with_name("cut_off_ant.py")
    ant = await asyncio.create_subprocess_exec(sys.executable, str(script), str(tmp_path / "home"), "1.0")
    async with asyncio.timeout(90):
        assert await ant.wait() == 0


async def test_an_idle_warden_is_small(start: Start) -> None:
    ant = await start("sleep 300")
    assert await _line(ant) == "ready"
    resident_pages = int(stat_fields(_warden_of(ant.pid))[21])
    assert resident_pages * os.sysconf("SC_PAGE_SIZE") < 12 * 1024 * 1024


async def test_the_lock_is_free_after_an_orderly_end(start: Start, tmp_path: Path) -> None:
    ant = await start("true")
    assert await _line(ant) == "ready"
    warden = _warden_of(ant.pid)
    ant.send_signal(signal.SIGINT)
    await ant.wait()
    assert not _lives(warden)
    with (tmp_path / "home/ants/ant-1.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(40):
        return (await process.stdout.readline()).decode().strip()


async def _pids(file: Path, count: int) -> list[int]:
    async with asyncio.timeout(40):
        await _until(lambda: len(_numbers(file)) >= count)
    return _numbers(file)


def _numbers(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()] if file.exists() else []


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - processes of others die without telling us
        await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def _warden_of(ant_pid: int) -> int:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parent = int((stat_fields(entry.name) or ["", "0"])[1])
        if b"ant/warden.py" in command and parent == ant_pid:
            return int(entry.name)
    raise AssertionError("no warden")
