"""What only scripts can do: fork, ignore, leave their session, fill pipes."""

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from executors.base import Executor, Outcome, Reason, Run, Stream
from executors.errors import SpecRefusedError, StartFailedError
from executors.process import Command, spawn_gated
from executors.specs import ShellSpec
from executors.testing import CollectingSink, RecordingGuard, make_attempt
from formicary.ant.warden import stat_fields


class Bench:
    """A shell executor with a folder for its attempts."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder
        self.workdir = folder / "work"

    def list_files(self) -> list[str]:
        return sorted(path.name for path in self.workdir.iterdir())

    def list_siblings(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def write_script(self, text: str) -> Path:
        self.workdir.mkdir()
        script = self.folder / "script.sh"
        script.write_text(text)
        return script

    def read_file(self, name: str) -> str:
        return (self.workdir / name).read_text()

    async def start(self, spec: ShellSpec, sink: CollectingSink, guard: RecordingGuard | None = None) -> Run:
        attempt = make_attempt(spec, self.workdir, job_id=f"job-{self.folder}", guard=guard)
        return await self.executor.start(attempt, sink)

    async def run(self, *script: str, **keys: object) -> tuple[Outcome, CollectingSink]:
        sink = CollectingSink()
        run = await self.start(ShellSpec(script=script, **keys), sink)  # type: ignore[arg-type]  # passed through
        async with asyncio.timeout(40):
            outcome = await self.executor.wait(run)
        await self.executor.cleanup(run)
        return outcome, sink


@pytest.fixture
async def bench(make_executor: Callable[[str], Awaitable[Executor]], tmp_path: Path) -> Bench:
    return Bench(await make_executor("SHELL"), tmp_path)


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[str]:
    """Returns the children of this process, zombies too; servers that other tests share are among them."""
    names = (entry.name for entry in Path("/proc").glob("[0-9]*"))
    return {name for name in names if (stat_fields(name) or ["", ""])[1] == str(os.getpid())}


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


async def test_the_script_ends_at_the_first_command_that_fails(bench: Bench) -> None:
    outcome, sink = await bench.run("echo before", "false", "echo after")

    assert outcome.exit_code == 1
    assert sink.text() == b"before\n"


async def test_before_script_and_script_share_one_shell(bench: Bench) -> None:
    _, sink = await bench.run('echo "$word"', before_script=("word=shared", "cd /"))

    assert sink.text() == b"shared\n"


async def test_stdout_and_stderr_stay_apart(bench: Bench) -> None:
    _, sink = await bench.run("echo out", "echo err >&2")

    assert (sink.text(Stream.STDOUT), sink.text(Stream.STDERR)) == (b"out\n", b"err\n")


async def test_a_child_that_holds_the_output_open_does_not_hang_the_run(bench: Bench) -> None:
    outcome, sink = await bench.run("sleep 300 & echo $!", "echo done")

    assert outcome.is_success
    assert not is_alive(int(sink.text().split()[0]))


async def test_children_that_ignore_term_are_killed_after_the_script(bench: Bench) -> None:
    outcome, sink = await bench.run("(trap '' TERM; sleep 300; sleep 300) & echo $!", "echo done")

    assert outcome.is_success
    assert not is_alive(int(sink.text().split()[0]))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="strays are found through /proc")
@pytest.mark.parametrize("redirect", ["", " >/dev/null 2>&1"])
async def test_children_that_left_the_session_are_found_and_ended(bench: Bench, redirect: str) -> None:
    outcome, sink = await bench.run(f"setsid sh -c 'echo $$ >pid; sleep 300'{redirect} &", "sleep 0.2; cat pid")

    assert outcome.is_success
    assert not is_alive(int(sink.text()))


async def test_a_stop_reaches_children_in_and_out_of_the_group(bench: Bench) -> None:
    sink = CollectingSink()
    spec = ShellSpec(
        script=(
            "sleep 300 & echo $! >one",
            "setsid sleep 300 & echo $! >two",
            "echo up; wait",
        )
    )
    run = await bench.start(spec, sink)
    await sink.first_write.wait()
    pids = [int(bench.read_file(name)) for name in ("one", "two")]

    async with asyncio.timeout(40):
        await bench.executor.stop(run, 0.5, Reason.CANCELLED)

    assert not any(is_alive(pid) for pid in pids)
    await bench.executor.cleanup(run)


async def test_all_that_ignore_a_stop_share_one_grace(bench: Bench) -> None:
    sink = CollectingSink()
    deaf = "sh -c \"trap 'echo asked >>asked' TERM; echo x >>up; while :; do : >beat.\\$\\$; sleep 0.02; done\""
    both_up = 'until [ "$(cat up 2>&-)" = "$(printf \'x\\nx\')" ]; do :; done'
    script = (f"setsid {deaf} & {deaf} & trap '' TERM; {both_up}", "echo up", "wait")
    run = await bench.start(ShellSpec(script=script), sink)
    await sink.first_write.wait()
    began, grace_s = asyncio.get_running_loop().time(), 2.0

    await bench.executor.stop(run, grace_s, Reason.TIMED_OUT)

    assert grace_s <= asyncio.get_running_loop().time() - began
    assert bench.read_file("asked").count("asked") == 2
    one, other = (beat.stat().st_mtime for beat in bench.workdir.glob("beat.*"))
    assert abs(one - other) < grace_s, "one was killed a grace after the other"
    await bench.executor.cleanup(run)


async def test_stop_gives_the_script_its_grace(bench: Bench) -> None:
    sink = CollectingSink()
    run = await bench.start(
        ShellSpec(script=("trap 'echo saved; exit 0' TERM", "echo up", "while :; do sleep 0.02; done")), sink
    )
    await sink.first_write.wait()

    await bench.executor.stop(run, 10, Reason.TIMED_OUT)

    assert (await bench.executor.wait(run)).reason is Reason.TIMED_OUT
    assert sink.text() == b"up\nsaved\n"
    await bench.executor.cleanup(run)


async def test_a_child_gets_the_grace_of_stop_after_its_shell_is_gone(bench: Bench) -> None:
    sink = CollectingSink()
    script = "sh -c 'trap \"sleep 0.5; echo saved; exit\" TERM; echo up; while :; do sleep 0.05; done'; true"
    run = await bench.start(ShellSpec(script=(script,)), sink)
    await sink.first_write.wait()

    await bench.executor.stop(run, 10, Reason.CANCELLED)

    assert sink.text() == b"up\nsaved\n"
    await bench.executor.cleanup(run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_signal_that_ends_the_script_is_told_from_an_exit_code(bench: Bench, number: signal.Signals) -> None:
    outcome, _ = await bench.run(f"kill -{number.value} $$")

    assert (outcome.reason, outcome.exit_code) == (Reason.SIGNALLED, 128 + number)
    assert number.name in (outcome.message or "")


async def test_a_signal_that_ends_a_command_is_an_exit_code_with_a_hint(bench: Bench) -> None:
    outcome, _ = await bench.run("sh -c 'kill -9 $$'")

    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 137)
    assert "SIGKILL" in (outcome.message or "")


async def test_standard_input_is_empty(bench: Bench) -> None:
    outcome, sink = await bench.run("cat", "readlink /proc/$$/fd/0")

    assert outcome.is_success
    assert sink.text() == b"/dev/null\n"


async def test_no_descriptor_of_the_ant_is_open_in_the_script(bench: Bench) -> None:
    _, sink = await bench.run("ls /proc/self/fd | sort -n | tr '\\n' ' '")

    assert sink.text().split()[:4] == [b"0", b"1", b"2", b"3"]  # 3 is the folder that ls reads
    assert len(sink.text().split()) == 4


async def test_bytes_that_are_no_text_arrive_untouched(bench: Bench) -> None:
    _, sink = await bench.run(r"printf '\377\376\000\200caf\351'")

    assert sink.text() == b"\xff\xfe\x00\x80caf\xe9"


async def test_a_line_of_200_mb_flows_through_in_bounded_memory(bench: Bench) -> None:
    sink = CollectingSink(keep_bytes=0)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = await bench.start(ShellSpec(script=("head -c 200000000 /dev/zero",)), sink)

    await bench.executor.wait(run)

    assert sink.sizes[Stream.STDOUT] == 200_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20_000
    await bench.executor.cleanup(run)


async def test_the_environment_is_clean(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMICARY_DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    _, sink = await bench.run("env", environment={"REGION": "eu west"})

    seen = dict(line.split("=", 1) for line in sink.text().decode().splitlines())
    made_by_shells = {"PWD", "OLDPWD", "SHLVL", "_"}
    ours = {"PATH", "HOME", "LANG", "TMPDIR", "FORMICARY_JOB_ID", "FORMICARY_TASK_TYPE", "FORMICARY_ATTEMPT", "REGION"}
    assert set(seen) - made_by_shells == ours
    assert (seen["HOME"], seen["REGION"]) == (str(bench.workdir), "eu west")


async def test_the_working_directory_starts_empty(bench: Bench) -> None:
    _, sink = await bench.run("pwd", "ls -A", 'touch "$TMPDIR/file"', "ls -A")

    assert sink.text() == f"{bench.workdir}\n".encode()


async def test_cleanup_leaves_only_the_working_directory(bench: Bench) -> None:
    await bench.run('mkdir "$TMPDIR/a"; touch "$TMPDIR/a/b" result')

    assert bench.list_siblings() == ["work"]
    assert bench.list_files() == ["result"]


async def test_nothing_runs_when_the_warden_refuses(bench: Bench) -> None:
    guard = RecordingGuard(refuses=True)

    with pytest.raises(StartFailedError, match="lease"):
        await bench.start(ShellSpec(script=("touch ran",), after_script=("touch ran",)), CollectingSink(), guard)

    assert bench.list_files() == []
    assert not is_alive(guard.registered[0])


async def test_nothing_runs_before_the_warden_has_promised(bench: Bench) -> None:
    class SlowGuard(RecordingGuard):
        asked = asyncio.Event()
        may_promise = asyncio.Event()

        async def register(self, pid: int) -> None:
            await super().register(pid)
            self.asked.set()
            await self.may_promise.wait()

    guard = SlowGuard()
    starting = asyncio.create_task(bench.start(ShellSpec(script=("touch ran",)), CollectingSink(), guard))
    await guard.asked.wait()
    assert is_alive(guard.registered[0])
    assert bench.list_files() == []

    guard.may_promise.set()

    run = await starting
    assert (await bench.executor.wait(run)).is_success
    assert bench.list_files() == ["ran"]
    await bench.executor.cleanup(run)


async def test_a_start_that_is_cancelled_leaves_no_process(bench: Bench) -> None:
    class SilentGuard(RecordingGuard):
        asked = asyncio.Event()

        async def register(self, pid: int) -> None:
            await super().register(pid)
            self.asked.set()
            await asyncio.Event().wait()

    guard = SilentGuard()
    starting = asyncio.create_task(bench.start(ShellSpec(script=("touch ran",)), CollectingSink(), guard))
    await guard.asked.wait()

    starting.cancel()

    assert await asyncio.wait([starting], timeout=10) == ({starting}, set())
    assert not is_alive(guard.registered[0])


async def test_the_launcher_runs_nothing_when_the_ant_dies_before_the_promise(bench: Bench) -> None:
    script = bench.write_script("touch ran")
    command = Command(argv=("/bin/sh",), cwd=bench.workdir, environment={"PATH": os.defpath})
    child, gate, *fds = await spawn_gated(command, script, Path("/bin/sh"))

    gate.close()

    assert await child.exited() == 125
    assert bench.list_files() == []
    for fd in fds:
        os.close(fd)


async def test_the_warden_hears_of_every_group_and_of_its_end(bench: Bench) -> None:
    guard = RecordingGuard()
    run = await bench.start(ShellSpec(script=("true",), after_script=("true",)), CollectingSink(), guard)

    await bench.executor.wait(run)

    assert len(guard.registered) == 2
    assert guard.registered == guard.forgotten
    await bench.executor.cleanup(run)


@pytest.mark.parametrize("line", ["true", "exit 3", "kill -9 $$"])
async def test_after_script_runs_whatever_happened_and_changes_no_result(bench: Bench, line: str) -> None:
    plain, _ = await bench.run(line)
    outcome, sink = await bench.run(line, after_script=("echo after", "exit 9"))

    assert outcome == plain
    assert sink.text() == b"after\n"
    assert b"exit code 9" in sink.text(Stream.SYSTEM)


async def test_after_script_runs_after_a_stop(bench: Bench) -> None:
    sink = CollectingSink()
    run = await bench.start(ShellSpec(script=("echo up; sleep 300",), after_script=("echo after",)), sink)
    await sink.first_write.wait()

    await bench.executor.stop(run, 5, Reason.TIMED_OUT)

    assert sink.text() == b"up\nafter\n"
    assert (await bench.executor.wait(run)).reason is Reason.TIMED_OUT
    await bench.executor.cleanup(run)


async def test_a_stop_ends_an_after_script_that_hangs_and_the_result_stands(bench: Bench) -> None:
    sink = CollectingSink()
    run = await bench.start(ShellSpec(script=("exit 3",), after_script=("echo after; sleep 300",)), sink)
    await sink.first_write.wait()

    async with asyncio.timeout(40):
        await bench.executor.stop(run, 1, Reason.CANCELLED)

    assert (await bench.executor.wait(run)).exit_code == 3
    await bench.executor.cleanup(run)


async def test_a_huge_script_runs(bench: Bench) -> None:
    outcome, sink = await bench.run(*(f": line {number}" for number in range(100_000)), "echo end")

    assert outcome.is_success
    assert sink.text() == b"end\n"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"script": ("echo \0",)}, "NUL"),
        ({"script": ("echo \ud800",)}, "surrogate"),
        ({"environment": {"A=B": "1"}}, "variable"),
        ({"environment": {"FORMICARY_JOB_ID": "1"}}, "set by formicary"),
        ({"environment": {"A": "x" * 4_000_000}}, "larger than the system allows"),
    ],
)
async def test_what_no_process_can_be_given_is_refused_with_the_reason(
    bench: Bench, keys: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecRefusedError, match=words):
        await bench.start(ShellSpec(**keys), CollectingSink())  # type: ignore[arg-type]  # passed through


async def test_no_zombies_and_no_descriptors_stay(bench: Bench) -> None:
    await bench.run("sleep 300 & setsid sleep 300 & true")
    before = count_descriptors(), children()

    for _ in range(5):
        await bench.run("sleep 300 & true", after_script=("true",))

    assert (count_descriptors(), children()) == before
