"""Scripts under limits and as an unprivileged user: what they may, what ends them, and what they cannot get at."""

import asyncio
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors.accounts import find_account
from executors.base import Outcome, Reason, Stream
from executors.cgroups import MEMORY, PIDS, Cgroups
from executors.errors import ExecutorError, SpecRefusedError
from executors.options import ExecutorOptions
from executors.shell import ShellExecutor
from executors.specs import Limits, ShellSpec
from executors.testing import CollectingSink, make_attempt

#: A user that nobody else is, so that its processes can be counted.
LONELY = "48213:48213"
KEPT = Cgroups.find().kept
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
needs_memory_groups = pytest.mark.skipif(MEMORY not in KEPT, reason="no control groups of memory to be had here")
needs_pids_groups = pytest.mark.skipif(PIDS not in KEPT, reason="no control groups of processes to be had here")
Runner = Callable[..., "asyncio.Future[tuple[Outcome, CollectingSink]]"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can pass through, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="formicary-", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


class Cell:
    """Runs scripts under the options of one ant."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0

    async def executor(self, is_checked: bool = True, **options: object) -> ShellExecutor:
        executor = ShellExecutor(ExecutorOptions(shell_leftover_grace_s=0.2, **options))  # type: ignore[arg-type]
        if is_checked:
            await executor.check()
        return executor

    async def run(
        self, executor: ShellExecutor, *script: str, limits: Limits | None = None, after: tuple[str, ...] = ()
    ) -> tuple[Outcome, str]:
        self.count += 1
        sink = CollectingSink()
        spec = ShellSpec(script=script, after_script=after, limits=limits)
        job_id = f"job-{self.place}"
        run = await executor.start(
            make_attempt(spec, self.place / str(self.count) / "work", job_id=job_id, number=self.count), sink
        )
        async with asyncio.timeout(60):
            outcome = await executor.wait(run)
        await executor.cleanup(run)
        return outcome, (sink.text() + sink.text(Stream.STDERR)).decode()


@pytest.fixture
def cell(place: Path) -> Cell:
    return Cell(place)


#: Neither process is too large by itself; whichever is killed, the first one ends by KILL.
_TWO_TIMES_60_MIB = """
import os
mine = bytearray(60 << 20)
if not os.fork():
    another = bytearray(60 << 20)
    os._exit(0)
status = os.wait()[1]
os.kill(os.getpid(), os.WTERMSIG(status))
"""


def python(code: str) -> str:
    return f"{sys.executable} -S -c '{code}'"


async def test_a_script_that_computes_too_long_is_ended_and_says_why(cell: Cell) -> None:
    outcome, _ = await cell.run(await cell.executor(), "while :; do :; done", limits=Limits(cpu_time_s=0.5))

    assert (outcome.reason, outcome.exit_code) == (Reason.CPU_TIME, 152)
    assert "limits.cpu_time" in (outcome.message or "")


async def test_sigxcpu_from_elsewhere_is_no_limit_of_ours(cell: Cell) -> None:
    outcome, _ = await cell.run(await cell.executor(), "kill -XCPU $$")

    assert (outcome.reason, outcome.exit_code) == (Reason.SIGNALLED, 152)


async def test_a_script_that_ignores_the_end_of_its_time_is_killed(cell: Cell) -> None:
    outcome, _ = await cell.run(
        await cell.executor(), "trap '' XCPU; while :; do :; done", limits=Limits(cpu_time_s=0.5)
    )

    assert (outcome.reason, outcome.exit_code) == (Reason.SIGNALLED, 137)


@needs_memory_groups
async def test_a_child_that_wants_too_much_memory_is_out_of_memory(cell: Cell) -> None:
    hungry = python("x = bytearray(300 << 20)")
    outcome, _ = await cell.run(await cell.executor(), hungry, limits=Limits(memory_bytes=64 << 20))

    assert (outcome.reason, outcome.exit_code) == (Reason.OUT_OF_MEMORY, 137)
    assert str(64 << 20) in (outcome.message or "")


@needs_memory_groups
async def test_memory_is_bounded_for_the_script_as_a_whole(cell: Cell) -> None:
    file = cell.place / "two.py"
    file.write_text(_TWO_TIMES_60_MIB)
    outcome, _ = await cell.run(
        await cell.executor(), f"{sys.executable} -S {file}", limits=Limits(memory_bytes=100 << 20)
    )

    assert outcome.reason is Reason.OUT_OF_MEMORY


async def test_without_control_groups_memory_is_bounded_for_each_process(cell: Cell) -> None:
    outcome, said = await cell.run(
        await cell.executor(is_checked=False),
        python("x = bytearray(300 << 20)"),
        limits=Limits(memory_bytes=100 << 20),
    )

    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 1)
    assert "MemoryError" in said


async def test_open_files_are_bounded(cell: Cell) -> None:
    _, said = await cell.run(await cell.executor(), "ulimit -n", limits=Limits(open_files=77))

    assert said == "77\n"


@needs_pids_groups
async def test_processes_are_bounded_for_the_script_as_a_whole(cell: Cell) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 30 & done; wait"
    outcome, said = await cell.run(await cell.executor(), script, limits=Limits(processes=5))

    assert not outcome.is_success
    assert "fork" in said.lower()


@as_root
async def test_without_control_groups_processes_are_bounded_for_their_user(cell: Cell) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 30 & done; wait"
    executor = await cell.executor(shell_user=LONELY)
    executor._warder._cgroups = Cgroups({})
    outcome, said = await cell.run(executor, script, limits=Limits(processes=5))

    assert not outcome.is_success
    assert "fork" in said.lower()


@as_root
async def test_a_limit_that_nothing_keeps_is_refused(cell: Cell) -> None:
    with pytest.raises(SpecRefusedError, match="FORMICARY_SHELL_USER"):
        await cell.run(await cell.executor(is_checked=False), "true", limits=Limits(processes=5))


async def test_no_task_gets_more_than_its_ant_allows(cell: Cell) -> None:
    executor = await cell.executor(shell_limits=Limits(cpu_time_s=60, open_files=100))

    with pytest.raises(SpecRefusedError, match=r"limits\.cpu_time: 61 is more than the 60 that this ant allows"):
        await cell.run(executor, "true", limits=Limits(cpu_time_s=61))


async def test_a_task_that_asks_for_nothing_gets_what_its_ant_allows(cell: Cell) -> None:
    executor = await cell.executor(shell_limits=Limits(open_files=100))

    assert (await cell.run(executor, "ulimit -n"))[1] == "100\n"
    assert (await cell.run(executor, "ulimit -n", limits=Limits(open_files=50)))[1] == "50\n"


@needs_pids_groups
async def test_what_shed_its_marks_and_its_session_is_over_before_the_end_is_told(cell: Cell) -> None:
    """Without a control group nothing leads to such a process."""
    executor = await cell.executor()
    sink = CollectingSink()
    escape = "env -i setsid sh -c 'echo $$ > up; exec sleep 300' & while ! [ -s up ]; do sleep 0.01; done; cat up"
    spec = ShellSpec(script=(escape,), limits=Limits(processes=20))
    run = await executor.start(make_attempt(spec, cell.place / "work", job_id=str(cell.place)), sink)
    await executor.wait(run)

    assert not is_running(Path("/proc", sink.text().decode().strip()))
    await executor.cleanup(run)


@needs_pids_groups
async def test_no_control_group_is_left(cell: Cell) -> None:
    executor = await cell.executor()
    await cell.run(executor, "true", limits=Limits(processes=20, memory_bytes=64 << 20))

    parents = set(executor._warder._cgroups._parents.values())
    assert [path for parent in parents for path in parent.glob(f"formicary-{os.getpid()}-*")] == []


async def test_the_mode_mask_is_the_one_that_is_set(cell: Cell) -> None:
    await cell.run(await cell.executor(shell_umask=0o027), "touch made")

    assert stat.S_IMODE((cell.place / "1/work/made").stat().st_mode) == 0o640


async def test_the_temporary_folder_is_private_and_goes_with_the_attempt(cell: Cell) -> None:
    _, said = await cell.run(await cell.executor(), 'stat -c %a "$TMPDIR"; touch "$TMPDIR/file"; echo "$TMPDIR"')

    mode, folder = said.split()
    assert mode == "700"
    assert not exists(folder)


@as_root
async def test_a_script_runs_as_the_user_of_its_ant_without_any_privilege(cell: Cell) -> None:
    executor = await cell.executor(shell_user="nobody")
    _, said = await cell.run(executor, "id -u; id -G; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; id >&2")

    uid, groups, *status = said.split("\n")
    assert (uid, groups) == ("65534", "65534")
    assert dict(line.split("\t")[:2] for line in status if "\t" in line) == {
        **dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"), "0" * 16),
        "NoNewPrivs:": "1",
    }


@as_root
async def test_the_user_owns_its_folders_and_nothing_beside_them(cell: Cell) -> None:
    executor = await cell.executor(shell_user="nobody")
    writing = 'touch here "$TMPDIR/here" && ! touch ../here 2>/dev/null && ! ls "$TMPDIR/.." 2>/dev/null'
    swapping = '! ln -s /etc/passwd "$TMPDIR/../after.sh" 2>/dev/null && ! mv "$TMPDIR" "$TMPDIR.old" 2>/dev/null'
    outcome, said = await cell.run(executor, writing, swapping, after=("id -un",))

    assert outcome.is_success
    assert said == "nobody\n"


@as_root
async def test_no_variable_of_a_task_reaches_a_process_that_is_not_its_users_yet(cell: Cell) -> None:
    """The loader writes a file for each program that it starts with these variables, owned by who runs it."""
    spy = cell.place / "spy"
    spy.mkdir()
    spy.chmod(0o777)
    variables = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": f"{spy}/ld", "SAID": "it's \n $HOME `id`"}
    spec = ShellSpec(script=("/bin/true", 'printf %s "$SAID"'), environment=variables)
    executor, sink = await cell.executor(shell_user="nobody"), CollectingSink()
    run = await executor.start(make_attempt(spec, cell.place / "one/work"), sink)

    assert (await executor.wait(run)).is_success
    assert owners_below(spy) == {65534}
    assert sink.text().decode() == variables["SAID"]
    await executor.cleanup(run)


@as_root
@pytest.mark.parametrize("variables", [{"a-b": "1"}, {"a": "x" * 140_000}])
async def test_a_variable_that_cannot_be_handed_on_is_refused(cell: Cell, variables: dict[str, str]) -> None:
    executor = await cell.executor(shell_user="nobody")
    spec = ShellSpec(script=("true",), environment=variables)
    with pytest.raises(SpecRefusedError, match="environment"):
        await executor.start(make_attempt(spec, cell.place / "one/work"), CollectingSink())


@as_root
async def test_when_it_is_over_nothing_belongs_to_the_user_any_more(cell: Cell) -> None:
    executor = await cell.executor(shell_user="nobody")
    await cell.run(executor, "mkdir -p a/b; touch a/b/c; ln -s /etc/passwd a/link; chmod 0 a/b")

    work = cell.place / "1/work"
    assert owners(work) == {0}
    assert owners(Path("/etc/passwd")) == {0}


@as_root
async def test_a_script_of_another_user_is_stopped_with_all_its_children(cell: Cell) -> None:
    executor = await cell.executor(shell_user=LONELY)
    sink = CollectingSink()
    spec = ShellSpec(script=("trap '' TERM; setsid sleep 300 & echo up; sleep 300; sleep 300",))
    run = await executor.start(make_attempt(spec, cell.place / "one/work", job_id=str(cell.place)), sink)
    await sink.first_write.wait()
    await executor.stop(run, 0.1, Reason.CANCELLED)

    assert (await executor.wait(run)).reason is Reason.CANCELLED
    assert not running_of(48213)
    await executor.cleanup(run)


def exists(path: str) -> bool:
    return Path(path).exists()


def owners(path: Path) -> set[int]:
    return {each.lstat().st_uid for each in (path, *path.rglob("*"))}


def owners_below(folder: Path) -> set[int]:
    return {each.lstat().st_uid for each in folder.iterdir()}


def running_of(uid: int) -> list[str]:
    return [each.name for each in Path("/proc").glob("[0-9]*") if is_running(each) and each.stat().st_uid == uid]


def is_running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@as_root
async def test_an_ant_whose_folder_the_user_cannot_reach_says_so(cell: Cell, closed: Path) -> None:
    with pytest.raises(ExecutorError, match=r"nobody cannot enter .* FORMICARY_HOME"):
        await cell.executor(shell_user="nobody", shell_folder=closed)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("root", "is root"),
        ("0:0", "is root"),
        ("no-such-user", "does not exist"),
        ("nobody:no-such-group", "does not exist"),
        ("48213", "write it as UID:GID"),
        ("99999999999", "does not exist"),
    ],
)
def test_a_user_that_will_not_do_is_refused(user: str, says: str) -> None:
    with pytest.raises(ExecutorError, match=says):
        find_account(user)
