"""What a task is given in its container, and what becomes of it."""

import asyncio

import pytest

from executors.base import Reason, Stream
from executors.errors import ImageError, SpecRefusedError, StartFailedError
from executors.specs import EmptyDirSpec, VolumeSpec
from executors.testing import CollectingSink, RecordingGuard
from tests.engines import TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, Ended, MakeBench, spec, until

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

#: What a container says of its limits, whichever version of control groups the machine has.
_LIMITS = """
cd /sys/fs/cgroup
cat memory.max memory/memory.limit_in_bytes 2>/dev/null || :
cut -d ' ' -f 1 cpu.max cpu/cpu.cfs_quota_us 2>/dev/null || :
cat memory.low memory/memory.soft_limit_in_bytes 2>/dev/null || :
cat cpu.weight cpu/cpu.shares 2>/dev/null || :
"""
_OOM_TRIES = 5
#: Takes memory for good: the shell's own, or a child's.
_EAT = "x=x; while :; do x=$x$x; done"


async def test_both_streams_arrive_apart_and_as_they_are(bench: Bench) -> None:
    ended = await bench.run(spec("printf 'out\\n\\377'", "printf err >&2"))

    assert ended.sink.text() == b"out\n\xff"
    assert ended.sink.text(Stream.STDERR) == b"err"


async def test_a_task_sees_its_variables_and_those_of_its_image(bench: Bench) -> None:
    docker = spec("env | sort; pwd", environment={"OWN": "1 2"}, container={"user": "0:0"})
    ended = await bench.run(docker, attempt=bench.attempt(docker, FORMICARY_JOB_TYPE="nightly"))

    seen = dict(line.partition("=")[::2] for line in ended.text.splitlines())
    assert seen["OWN"] == "1 2"
    assert (seen["FORMICARY_JOB_TYPE"], seen["FORMICARY_TASK_TYPE"]) == ("nightly", "task")
    assert (seen["PATH"], seen["LANG"], seen["HOME"]) == ("/bin:/usr/bin", "C.UTF-8", "/root")
    assert (seen["TMPDIR"], seen["PWD"]) == ("/formicary/tmp", "/formicary/work")
    assert not any(name in seen for name in ("DOCKER_HOST", "USER", "PYTEST_CURRENT_TEST"))


async def test_without_a_script_the_command_is_the_images_or_the_specs_own(bench: Bench) -> None:
    command = await bench.run(spec(container={"entrypoint": ("echo", "one"), "command": ("two",)}))
    image = await bench.run(spec())  # the image's own command is a shell, which reads no input

    assert command.text == "one two\n"
    assert image.outcome.is_success


async def test_an_entrypoint_stands_before_the_shell_of_a_script(bench: Bench) -> None:
    ended = await bench.run(spec("echo $GREETING", container={"entrypoint": ("env", "GREETING=hi")}))
    assert ended.text == "hi\n"


async def test_a_script_of_any_length_runs(bench: Bench) -> None:
    ended = await bench.run(spec("cat > /dev/null <<'EOF'", *["x" * 1000] * 300, "EOF", "echo done"))
    assert ended.text == "done\n"


async def test_memory_and_processors_are_limited_and_weighed(bench: Bench) -> None:
    container = {"memory_limit": "64Mi", "cpu_limit": "500m", "cpu_request": "0.25", "memory_request": "32Mi"}
    ended = await bench.run(spec(_LIMITS, container=container))

    *amounts, share = ended.text.split()
    assert amounts == [str(64 * 2**20), "50000", str(32 * 2**20)]
    assert share in ("256", "10")  # a quarter of the usual 1024 shares, or the weight that stands for it


async def eaten(bench: Bench, *script: str, reason: Reason = Reason.OUT_OF_MEMORY, words: str = "") -> Ended:
    """Runs what takes too much memory: anew where the engine did not hear of it, as it may on a loaded machine."""
    for _ in range(_OOM_TRIES):
        ended = await bench.run(spec(*script, container={"memory_limit": "16Mi"}))
        if ended.outcome.reason is reason and words in (ended.outcome.message or ""):
            break
    return ended


async def test_a_container_that_takes_too_much_memory_is_told_apart_from_a_failure(bench: Bench) -> None:
    ended = await eaten(bench, _EAT)

    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.OUT_OF_MEMORY, 137)
    assert "16Mi" in (ended.outcome.message or "")


@pytest.mark.parametrize(
    ("script", "reason", "code", "words"),
    [
        ((f"({_EAT}) || true",), Reason.EXITED, 0, ""),
        ((f"({_EAT}) || exit 5",), Reason.EXITED, 5, "want of memory"),
        ((f"({_EAT})",), Reason.OUT_OF_MEMORY, 137, "want of memory"),
        (("exit 137",), Reason.EXITED, 137, "may have been killed"),
    ],
)
async def test_a_child_that_takes_too_much_memory_fails_the_task_only_if_the_script_says_so(
    bench: Bench, script: tuple[str, ...], reason: Reason, code: int, words: str
) -> None:
    ended = await eaten(bench, *script, reason=reason, words=words)

    assert (ended.outcome.reason, ended.outcome.exit_code) == (reason, code)
    assert words in (ended.outcome.message or "")


async def test_a_stop_lets_the_running_command_end_by_itself_and_starts_no_other(bench: Bench) -> None:
    sink = CollectingSink()
    child = "sh -c 'trap \"echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.1; done'"
    run = await bench.start(spec(child, "echo never"), sink)
    await sink.first_write.wait()

    async with asyncio.timeout(40):
        await bench.executor.stop(run, 60, Reason.CANCELLED)

    assert (await bench.executor.wait(run)).reason is Reason.CANCELLED
    await bench.executor.cleanup(run)
    assert sink.text() == b"ready\nsaved\n"


async def test_a_stop_while_everything_is_still_being_made_leaves_nothing(bench: Bench, engine: TestEngine) -> None:
    for delay_s in (0.0, 0.02, 0.1, 0.3):
        run = await bench.start(spec("sleep 60"))
        await asyncio.sleep(delay_s)
        await bench.executor.stop(run, 0, Reason.CANCELLED)
        assert (await bench.executor.wait(run)).reason is Reason.CANCELLED
        assert engine.call("GET", "/containers/json") == []
        await bench.executor.cleanup(run)


async def test_the_after_script_runs_in_the_same_container_whatever_happened(bench: Bench) -> None:
    docker = spec("echo kept > file; exit 3", after_script=("cat file", "echo $FORMICARY_ATTEMPT", "exit 9"))
    ended = await bench.run(docker)

    assert (ended.outcome.reason, ended.outcome.exit_code) == (Reason.EXITED, 3)
    assert ended.text == f"kept\n{ended.attempt.number}\n"
    assert "after_script ended with exit code 9" in ended.notes


async def test_the_after_script_follows_a_stop_with_grace_and_none_without(bench: Bench) -> None:
    for grace_s, said in ((5.0, b"ready\nafter\n"), (0.0, b"ready\n")):
        sink = CollectingSink()
        run = await bench.start(spec("echo ready", "sleep 60", after_script=("echo after",)), sink)
        await sink.first_write.wait()
        await bench.executor.stop(run, grace_s, Reason.TIMED_OUT)
        assert (await bench.executor.wait(run)).reason is Reason.TIMED_OUT
        await bench.executor.cleanup(run)
        assert sink.text() == said


async def test_an_after_script_has_its_own_time_limit(make_bench: MakeBench) -> None:
    bench = await make_bench(shell_after_script_limit_s=0.5, shell_leftover_grace_s=0.2)

    async with asyncio.timeout(40):
        ended = await bench.run(spec("true", after_script=("sleep 60",)))

    assert ended.outcome.is_success


async def test_nothing_starts_where_the_warden_gives_no_promise(bench: Bench, engine: TestEngine) -> None:
    guard = RecordingGuard(refuses=True)
    run = await bench.start(spec("echo no"), guard=guard)

    with pytest.raises(StartFailedError, match="lease"):
        await bench.executor.wait(run)

    await bench.executor.cleanup(run)
    assert (guard.admitted_count, guard.dismissed_count) == (1, 0)
    assert engine.containers() == []


async def test_the_warden_is_told_when_everything_is_gone(bench: Bench) -> None:
    guard = RecordingGuard()
    docker = spec("true")
    await bench.run(docker, attempt=bench.attempt(docker, guard))
    await bench.executor.close()

    assert (guard.admitted_count, guard.dismissed_count) == (1, 1)


async def test_named_volumes_outlive_an_attempt_and_others_do_not(make_bench: MakeBench, engine: TestEngine) -> None:
    bench = await make_bench(docker_volumes=("formicary-*",))
    kept = VolumeSpec(mount_path="/kept", volume="formicary-test")
    fresh = VolumeSpec(mount_path="/fresh", empty_dir=EmptyDirSpec())
    try:
        await bench.run(spec("touch /kept/a /fresh/a", container={"volumes": (kept, fresh)}))
        ended = await bench.run(spec("ls /kept /fresh", container={"volumes": (kept, fresh)}))
    finally:
        await bench.executor.close()
        engine.call("DELETE", "/volumes/formicary-test")

    assert ended.text == "/fresh:\n\n/kept:\na\n"
    assert not engine.call("GET", "/volumes")["Volumes"]


async def test_a_folder_in_memory_has_its_size_and_a_read_only_volume_takes_nothing(
    make_bench: MakeBench, engine: TestEngine
) -> None:
    bench = await make_bench(docker_volumes=("formicary-shut",))
    small = VolumeSpec(mount_path="/small", empty_dir=EmptyDirSpec(medium="Memory", size_limit="1Mi"))
    shut = VolumeSpec(mount_path="/shut", volume="formicary-shut", read_only=True)
    script = "df -k /small | tail -1 | awk '{print $2}'; touch /shut/a || echo shut"

    try:
        ended = await bench.run(spec(script, container={"volumes": (small, shut)}))
    finally:
        await bench.executor.close()
        engine.call("DELETE", "/volumes/formicary-shut")

    assert ended.text == "1024\nshut\n"


async def test_an_image_that_is_not_there_is_an_error_of_its_own(bench: Bench) -> None:
    for container, words in (
        ({"image": "no.such.registry.invalid/a/b:1"}, "no.such.registry.invalid/a/b:1 cannot be pulled"),
        ({"image": "missing:1", "image_pull_policy": "Never"}, "pull policy is Never"),
        ({"image": "UPPER/case:1"}, "UPPER/case:1"),
    ):
        with pytest.raises(ImageError, match=words):
            await bench.run(spec("true", container=container))


async def test_an_image_that_cannot_run_the_task_is_an_error_of_its_own(bench: Bench) -> None:
    with pytest.raises(ImageError, match="cannot run this"):
        await bench.run(spec(container={"entrypoint": ("/no/such/program",)}))
    with pytest.raises(ImageError, match="unable to find user"):
        await bench.run(spec("true", container={"user": "nobody-at-all"}))


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"memory_limit": "much"}, r'container.memory_limit: "much" is no size'),
        ({"memory_limit": "1k"}, "too little"),
        ({"cpu_limit": "0"}, "container.cpu_limit"),
        ({"working_dir": "src"}, "container.working_dir"),
        ({"volumes": (VolumeSpec(mount_path="/a", empty_dir=EmptyDirSpec(), read_only=True),)}, "read_only"),
        ({"privileged": True}, "FORMICARY_DOCKER_PRIVILEGED"),
    ],
)
async def test_values_that_can_never_work_are_refused_with_their_key(
    bench: Bench, container: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecRefusedError, match=words):
        await bench.start(spec("true", container=container))


async def test_fifty_containers_at_once_all_end_well(bench: Bench, engine: TestEngine) -> None:
    ended = await asyncio.gather(*(bench.run(spec(f"echo {number}"), patience_s=120) for number in range(50)))

    assert [each.text for each in ended] == [f"{number}\n" for number in range(50)]
    await until(lambda: engine.containers() == [])
