"""What a task finds in its pod, and what becomes of its output."""

import asyncio
from pathlib import Path

import pytest

from executors.base import Reason, Stream
from executors.errors import (
    CollectFailedError,
    ExecutorError,
    ImageError,
    SpecRefusedError,
    StartFailedError,
    UnschedulableError,
)
from executors.kubernetes.executor import KubernetesExecutor
from executors.specs import ContainerSpec, EnvironmentSourceSpec, KubernetesSpec
from executors.testing import CollectingSink
from tests.integration.kubernetes.conftest import IMAGE, Begin, ClusterUnderTest, MakeExecutor, finish, let_go, script

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: An entrypoint that stays, as the small programs do that reap orphans.
FIRST = ("sh", "-c", '"$@"; exit $?', "first")


async def test_a_script_keeps_its_dollars_and_sees_only_what_it_is_given(
    executor: KubernetesExecutor, begin: Begin
) -> None:
    sink = CollectingSink()
    spec = script(
        'echo "$(echo inner) $((1 + 1)) $$GREETING $GREETING" | sed "s/^inner 2 [0-9]*GREETING/inner 2 PID/"',
        "env | cut -d= -f1 | sort | tr '\\n' ' '",
        environment={"GREETING": "$(HOME) costs $$5"},
    )

    outcome = await finish(executor, await begin(spec, sink))

    assert outcome.is_success
    said, names = sink.text().decode().splitlines()
    assert said == "inner 2 PID $(HOME) costs $$5"
    given = {"FORMICARY_JOB_ID", "FORMICARY_TASK_TYPE", "FORMICARY_ATTEMPT", "FORMICARY_OUTPUT", "FORMICARY_RESULT_DIR"}
    made_by_the_cluster = {name for name in names.split() if name.startswith("KUBERNETES_")} | {"HOSTNAME", "SHLVL"}
    assert set(names.split()) - made_by_the_cluster - {"PWD", "OLDPWD"} == given | {
        *("GREETING", "HOME", "LANG", "PATH", "TMPDIR")
    }


async def test_before_script_shares_the_shell_and_after_script_changes_no_result(
    executor: KubernetesExecutor, begin: Begin
) -> None:
    sink = CollectingSink()
    spec = script(
        "echo $GREETING; exit 3",
        before_script=("export GREETING=hello; cd $TMPDIR",),
        after_script=("pwd; echo after $GREETING; exit 4",),
    )

    outcome = await finish(executor, await begin(spec, sink))

    assert outcome.exit_code == 3
    # What went to stdout and what went to stderr come in no fixed order.
    assert sink.text().replace(b"after_script ended with exit code 4\n", b"") == b"hello\n/formicary/work\nafter\n"
    assert b"after_script ended with exit code 4\n" in sink.text()


async def test_an_after_script_that_does_not_end_is_ended(make_executor: MakeExecutor, begin: Begin) -> None:
    """Also where the process that runs the scripts is not the container's first."""
    executor = await make_executor(after_limit_s=1)
    sinks = [CollectingSink(), CollectingSink()]
    lines, after = "echo a > kept; exit 3", ("trap '' TERM; echo begun", "while :; do sleep 60; done")
    specs = [script(lines, after_script=after, container={"entrypoint": first}) for first in ((), FIRST)]

    runs = [await begin(spec, sink, by=executor) for spec, sink in zip(specs, sinks, strict=True)]
    outcomes = await asyncio.gather(*map(executor.wait, runs))
    await asyncio.gather(*(executor.collect(run, ["kept"], with_results=True) for run in runs))
    for run in runs:
        let_go(executor, run)

    assert [outcome.exit_code for outcome in outcomes] == [3, 3]
    for sink, run in zip(sinks, runs, strict=True):
        assert b"begun\n" in sink.text()
        assert b"after_script was ended: it took longer than 1 s\n" in sink.text()
        assert (run.attempt.folder.path() / "kept").read_text() == "a\n"


async def test_output_that_is_json_or_no_text_or_ends_without_a_newline_comes_as_it_was(
    executor: KubernetesExecutor, begin: Begin
) -> None:
    sink = CollectingSink()
    lines = ["""printf '{"level": "info", "n": 1}\\n'""", r"printf '\377\000\033[0m\r.\n'", "printf 'no end'"]

    await finish(executor, await begin(script(*lines), sink))

    assert sink.text() == b'{"level": "info", "n": 1}\n\xff\x00\x1b[0m\r.\nno end'


async def test_a_script_may_be_longer_than_any_argument(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()
    text = "äöü" * 40_000

    await finish(executor, await begin(script(f"printf %s '{text}' | wc -c"), sink))

    assert sink.text() == b"%d\n" % len(text.encode())


async def test_without_a_script_the_images_own_command_runs(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()
    container = ContainerSpec(image=IMAGE, entrypoint=("echo", "$HOME"), command=("$(HOME)", "$$"))

    run = await begin(KubernetesSpec(container=container), sink, inputs={"given": b"given"})
    assert (await finish(executor, run)).is_success

    assert sink.text() == b"$HOME $(HOME) $$\n"
    assert b"without a script the task gets no artifacts" in sink.text(Stream.SYSTEM)
    with pytest.raises(CollectFailedError, match="give the task a script"):
        await executor.collect(run, ["a"], with_results=True)


async def test_without_a_script_exit_code_and_stop_work_too(executor: KubernetesExecutor, begin: Begin) -> None:
    failing = KubernetesSpec(container=ContainerSpec(image=IMAGE, command=("sh", "-c", "exit 5")))
    lasting = KubernetesSpec(container=ContainerSpec(image=IMAGE, command=("sleep", "60")))

    run = await begin(lasting)
    assert (await finish(executor, await begin(failing))).exit_code == 5
    await executor.stop(run, 1, Reason.TIMED_OUT)

    assert (await finish(executor, run)).reason is Reason.TIMED_OUT


async def test_want_of_memory_is_told_from_other_ends(executor: KubernetesExecutor, begin: Begin) -> None:
    expected = {
        "tail /dev/zero": (Reason.OUT_OF_MEMORY, 137, "raise memory_limit"),
        "tail /dev/zero || exit 7": (Reason.EXITED, 7, "a process of the task was killed for want of memory"),
        "tail /dev/zero || true": (Reason.EXITED, 0, ""),
        "kill -9 $$": (Reason.EXITED, 137, "probably SIGKILL"),
    }
    runs = [await begin(script(line, container={"memory_limit": "24Mi"})) for line in expected]
    command = ContainerSpec(image=IMAGE, command=("tail", "/dev/zero"), memory_limit="24Mi")
    direct = await begin(KubernetesSpec(container=command))
    killed = await begin(script("kill -9 $(cat /formicary/pid)", container={"entrypoint": FIRST}))

    *outcomes, of_main_process, of_wrapper = await asyncio.gather(
        *(finish(executor, run) for run in [*runs, direct, killed])
    )

    for outcome, (reason, exit_code, words) in zip(outcomes, expected.values(), strict=True):
        assert (outcome.reason, outcome.exit_code) == (reason, exit_code)
        assert words in (outcome.message or "")
    # A busy node may have lost sight of why.
    assert (of_main_process.exit_code, "raise memory_limit" in (of_main_process.message or "")) == (137, True)
    assert (of_wrapper.reason, of_wrapper.exit_code) == (Reason.EXITED, 137)


#: What cannot run, and how that is said.
HOPELESS: list[tuple[KubernetesSpec, type[ExecutorError], str]] = [
    (
        script("true", container={"image": "localhost/none:1", "image_pull_policy": "Never"}),
        ImageError,
        "none:1 cannot",
    ),
    (script("true", container={"image": "127.0.0.1:1/none:1"}), ImageError, "127.0.0.1:1/none:1 cannot be had"),
    (script("true", container={"image": "UPPER//case"}), ImageError, "InvalidImageName"),
    (script("true", container={"image": "localhost/pause:1"}), StartFailedError, "sh"),
    (script("true", node_selector={"disk": "golden"}), UnschedulableError, "no node takes the pod"),
    (script("true", env_from=(EnvironmentSourceSpec(config_map="absent"),)), StartFailedError, "absent"),
    (script("true", affinity={"nodeAfinity": {}}), SpecRefusedError, "nodeAfinity"),
    (script("true", container={"user": "1000", "working_dir": "/sys/x"}), StartFailedError, "/sys/x cannot be made"),
]


async def test_what_cannot_run_says_why_and_with_which_code(executor: KubernetesExecutor, begin: Begin) -> None:
    runs = [await begin(spec) for spec, _, _ in HOPELESS]

    errors = await asyncio.gather(*(finish(executor, run) for run in runs), return_exceptions=True)

    for error, (_, kind, words) in zip(errors, HOPELESS, strict=True):
        assert type(error) is kind
        assert words in str(error)


async def test_a_used_up_quota_says_so(cluster: ClusterUnderTest, executor: KubernetesExecutor, begin: Begin) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.apply(quota)
    try:
        async with asyncio.timeout(40):
            await cluster.kubectl("wait", "--for=jsonpath={.status.hard.pods}=0", "resourcequota/none")
        with pytest.raises(UnschedulableError, match="quota"):
            await finish(executor, await begin(script("true")))
    finally:
        await cluster.kubectl("delete", "resourcequota", "none")


async def test_rights_on_the_node_need_the_ants_leave(
    executor: KubernetesExecutor, make_executor: MakeExecutor, begin: Begin
) -> None:
    spec = script("grep CapEff /proc/1/status; ls -d /sys/class/net/eth0", container={"privileged": True})

    with pytest.raises(SpecRefusedError, match=r"container\.privileged"):
        await begin(spec)
    sink = CollectingSink()
    permissive = await make_executor(allow_privileged=True)
    assert (await finish(permissive, await begin(spec, sink, by=permissive))).is_success

    assert int(sink.text().split()[1], 16) & (1 << 21), "a privileged process has CAP_SYS_ADMIN"


async def test_inputs_arrive_and_what_is_left_is_brought_back(
    executor: KubernetesExecutor, begin: Begin, tmp_path: Path
) -> None:
    big = bytes(range(256)) * 20_000
    spec = script(
        "cat in/greeting; cat in/big.bin > out.bin; mkdir -p build/deep && echo made > build/deep/file",
        "ln -s /etc/passwd build/fout; ln -s deep/file build/fin; mkfifo build/fifo",
        "echo row_count=3 >> $FORMICARY_OUTPUT",
        "echo report > $FORMICARY_RESULT_DIR/r.txt",
        "mkdir scratch && head -c 3000000 /dev/zero > scratch/big",
    )
    sink = CollectingSink()
    run = await begin(spec, sink, inputs={"in/greeting": b"hello\n", "in/big.bin": big})

    outcome = await executor.wait(run)
    await executor.collect(run, ["out.bin", "build/**/f*", "absent/*"], with_results=True)
    let_go(executor, run)

    assert outcome.is_success
    assert sink.text() == b"hello\n"
    folder = run.attempt.folder
    work = folder.path()
    assert (work / "out.bin").read_bytes() == big
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*") if not path.is_dir()) == [
        "build/deep/file",
        "build/fin",
        "out.bin",
    ]
    assert (work / "build" / "fin").read_text() == "made\n"
    said = sink.text(Stream.SYSTEM)
    assert b"build/fout of the container was left out" in said
    assert b"build/fifo of the container was left out" in said
    assert folder.output_file.read_text() == "row_count=3\n"
    assert (folder.result_dir / "r.txt").read_text() == "report\n"


async def test_an_unprivileged_user_works_where_the_artifacts_are(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()
    spec = script("id -u; id -g; cat given; echo mine > kept", container={"user": "1000:1001"})
    run = await begin(spec, sink, inputs={"given": b"given\n"})

    assert (await executor.wait(run)).is_success
    await executor.collect(run, ["kept"], with_results=False)
    let_go(executor, run)

    assert sink.text() == b"1000\n1001\ngiven\n"
    assert (run.attempt.folder.path() / "kept").read_text() == "mine\n"


async def test_a_timed_out_task_leaves_its_artifacts(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()
    run = await begin(script("echo half > report", "echo ready", "sleep 60", after_script=("echo after",)), sink)
    await sink.first_write.wait()

    await executor.stop(run, 10, Reason.TIMED_OUT)
    outcome = await executor.wait(run)
    await executor.collect(run, ["report"], with_results=True)
    let_go(executor, run)

    assert outcome.reason is Reason.TIMED_OUT
    assert (run.attempt.folder.path() / "report").read_text() == "half\n"
    assert sink.text() == b"ready\nafter\n"


async def test_a_working_directory_of_the_image_is_used(executor: KubernetesExecutor, begin: Begin) -> None:
    sink = CollectingSink()

    await finish(executor, await begin(script("pwd; cat group | head -n 1", container={"working_dir": "/etc"}), sink))

    assert sink.text() == b"/etc\nroot:x:0:\n"
    assert sink.text(Stream.SYSTEM) == b""
