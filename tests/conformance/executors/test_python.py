"""Functions: how they are found, what they may do, and that none of it hurts the ant."""

import asyncio
import dataclasses
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from executors.base import Executor, Outcome, Reason, Run, Stream
from executors.errors import SpecRefusedError, StartFailedError
from executors.options import ExecutorOptions
from executors.python import PythonExecutor
from executors.specs import PythonSpec
from executors.testing import CollectingSink, RecordingGuard, make_attempt


class Bench:
    """A python executor and short ways to call the sample functions with it."""

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder

    def list_files(self) -> list[Path]:
        return list(self.folder.iterdir())

    async def start(
        self,
        name: str,
        *args: Any,
        sink: CollectingSink | None = None,
        guard: RecordingGuard | None = None,
        **keys: Any,
    ) -> Run:
        function = name if ":" in name else f"sample_functions:{name}"
        attempt = make_attempt(PythonSpec(function=function, args=args, **keys), self.folder / "work", guard=guard)
        return await self.executor.start(attempt, sink or CollectingSink())

    async def call(self, name: str, *args: Any, **keys: Any) -> tuple[Outcome, CollectingSink]:
        sink = CollectingSink()
        run = await self.start(name, *args, sink=sink, **keys)
        async with asyncio.timeout(40):
            outcome = await self.executor.wait(run)
        await self.executor.cleanup(run)
        return outcome, sink


@pytest.fixture
async def bench(make_executor: Callable[[str], Awaitable[Executor]], tmp_path: Path) -> Bench:
    return Bench(await make_executor("PYTHON"), tmp_path)


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_arguments_and_result_are_json(bench: Bench, is_pooled: bool) -> None:
    outcome, _ = await bench.call("echo", 1, {"a": [None]}, kwargs={"key": "ü"}, in_process_pool=is_pooled)

    assert outcome.outputs == {"result": {"args": [1, {"a": [None]}], "kwargs": {"key": "ü"}}}


async def test_a_task_without_files_makes_no_folder(bench: Bench) -> None:
    await bench.call("succeed")

    assert bench.list_files() == []


async def test_records_and_dates_become_json(bench: Bench) -> None:
    outcome, _ = await bench.call("typed_row")

    assert outcome.outputs == {"result": {"day": "2024-02-29", "pair": [1, 2]}}


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_a_result_that_is_no_json_fails_naming_type_and_place(bench: Bench, is_pooled: bool) -> None:
    outcome, _ = await bench.call("unencodable", in_process_pool=is_pooled)

    assert (outcome.exit_code, outcome.is_success) == (1, False)
    assert "result['rows'][1]['lock'] is lock" in (outcome.message or "")


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_an_exception_is_exit_code_1_with_only_the_users_frames(bench: Bench, is_pooled: bool) -> None:
    outcome, sink = await bench.call("fail", in_process_pool=is_pooled)

    trace = sink.text(Stream.STDERR).decode()
    assert (outcome.exit_code, outcome.message) == (1, "ValueError: what went wrong")
    assert "in inner" in trace
    assert trace.endswith("ValueError: what went wrong\n")
    assert f"{os.sep}executors{os.sep}calls.py" not in trace
    assert "process_worker" not in trace


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (None, 0), (7, 7), ("bad luck", 1)])
@pytest.mark.parametrize("is_pooled", [False, True])
async def test_sys_exit_is_honoured(bench: Bench, code: Any, exit_code: int, is_pooled: bool) -> None:
    outcome, _ = await bench.call("leave_sync", code, in_process_pool=is_pooled)

    assert (outcome.exit_code, outcome.is_success) == (exit_code, exit_code == 0)


async def test_sys_exit_in_a_subtask_leaves_the_other_functions_alone(bench: Bench) -> None:
    lasting = await bench.start("last")

    outcome, _ = await bench.call("leave_in_subtask")

    assert outcome.outputs == {"result": "went on"}
    assert (await bench.call("succeed"))[0].is_success
    await bench.executor.cleanup(lasting)


async def test_a_function_that_cancels_itself_failed(bench: Bench) -> None:
    outcome, _ = await bench.call("cancel_itself")

    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 1)


async def test_timeouts_work_inside_of_functions(bench: Bench) -> None:
    assert (await bench.call("with_timeout"))[0].outputs == {"result": "timed out inside"}


async def test_context_variables_do_not_pass_from_task_to_task(bench: Bench) -> None:
    await bench.call("touch_variable")

    assert (await bench.call("touch_variable"))[0].outputs == {"result": "untouched"}


async def test_no_function_runs_in_the_loop_of_the_ant(bench: Bench) -> None:
    outcome, _ = await bench.call("thread_name")

    assert outcome.outputs["result"] != threading.current_thread().name


async def test_what_is_printed_in_a_thread_of_a_function_is_its_own(bench: Bench) -> None:
    _, sink = await bench.call("talk_in_thread", "from below")

    assert sink.text() == b"from below\n"


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_binary_and_error_output_are_captured(bench: Bench, is_pooled: bool) -> None:
    _, sink = await bench.call("write_raw", "raw ü", in_process_pool=is_pooled)

    assert (sink.text(Stream.STDOUT), sink.text(Stream.STDERR)) == ("raw ü".encode(), b"to stderr\n")


async def test_what_the_ant_prints_itself_goes_where_it_went(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    await bench.call("succeed")

    sys.stdout.write("from the ant")

    assert capsys.readouterr().out == "from the ant"


async def test_close_puts_the_former_streams_back(bench: Bench) -> None:
    before = sys.stdout
    await bench.call("succeed")
    assert sys.stdout is not before

    await bench.executor.close()

    assert sys.stdout is before


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("sample_functions.succeed", "did you mean sample_functions:succeed"),
        ("sample_functions:suceed", "did you mean succeed"),
        ("sample_function:succeed", "did you mean sample_functions"),
        ("sample_functions:not_callable", "int, which cannot be called"),
        ("sample_broken:anything", "RuntimeError: no configuration"),
        ("os.nowhere:x", "no module os.nowhere"),
        ("", "package.module:name"),
        ("sample_functions:succeed()", "package.module:name"),
    ],
)
async def test_a_function_that_is_not_there_is_refused_with_the_nearest_name(
    bench: Bench, reference: str, words: str
) -> None:
    attempt = make_attempt(PythonSpec(function=reference), bench.folder)

    with pytest.raises(SpecRefusedError, match=words.replace("(", "\\(")):
        await bench.executor.start(attempt, CollectingSink())


async def test_a_member_of_a_class_can_be_called(bench: Bench) -> None:
    assert (await bench.call("Group.member", 1))[0].outputs == {"result": 2}


async def test_wrong_arguments_fail_the_task(bench: Bench) -> None:
    outcome, _ = await bench.call("succeed", 1, 2)

    assert outcome.exit_code == 1
    assert "takes 0 positional arguments" in (outcome.message or "")


async def test_a_thread_that_ignores_its_timeout_is_held_until_the_function_returns(bench: Bench) -> None:
    run = await bench.start("last_sync")
    await bench.executor.stop(run, 0.1, Reason.TIMED_OUT)
    outcome = await bench.executor.wait(run)
    released = asyncio.create_task(bench.executor.released(run))
    assert await asyncio.wait([released], timeout=0.05) == (set(), {released})

    sys.modules["sample_functions"].released.set()

    async with asyncio.timeout(40):
        await released
    assert "ignored its timeout and still holds its thread" in (outcome.message or "")
    await bench.executor.cleanup(run)


async def test_a_function_that_blocks_the_shared_loop_is_named_as_such(bench: Bench) -> None:
    blocking = await bench.start("block_loop")
    await asyncio.to_thread(sys.modules["sample_functions"].begun.wait, 40)
    waiting = await bench.start("succeed")

    await bench.executor.stop(blocking, 0.1, Reason.TIMED_OUT)
    await bench.executor.stop(waiting, 0.1, Reason.TIMED_OUT)

    assert "blocking ones must be plain `def`" in ((await bench.executor.wait(blocking)).message or "")
    assert "waits behind one" in ((await bench.executor.wait(waiting)).message or "")
    for run in (blocking, waiting):
        await bench.executor.cleanup(run)
    sys.modules["sample_functions"].released.set()
    async with asyncio.timeout(40):
        await bench.executor.released(blocking)


async def test_a_function_stopped_before_its_turn_never_runs(bench: Bench, options: ExecutorOptions) -> None:
    bench.executor = PythonExecutor(dataclasses.replace(options, python_threads=1))
    await bench.call("succeed_sync")
    functions = sys.modules["sample_functions"]
    functions.calls.clear()
    holding, waiting = await bench.start("last_sync"), await bench.start("remember", "ran")

    await bench.executor.stop(waiting, 5, Reason.CANCELLED)
    functions.released.set()
    await bench.executor.wait(holding)
    await bench.call("remember", "after")

    assert functions.calls == ["after"]
    for run in (holding, waiting):
        await bench.executor.cleanup(run)
    await bench.executor.close()


async def test_a_pooled_function_runs_in_a_process_that_is_used_again(bench: Bench) -> None:
    first, _ = await bench.call("process_id", in_process_pool=True)
    second, _ = await bench.call("process_id", in_process_pool=True)

    assert first.outputs["result"] == second.outputs["result"] != os.getpid()


async def test_a_pooled_function_that_is_stopped_is_killed(bench: Bench) -> None:
    guard = RecordingGuard()
    run = await bench.start("last_sync", guard=guard, in_process_pool=True)
    while not guard.registered:  # noqa: ASYNC110 - the double has no event
        await asyncio.sleep(0)

    await bench.executor.stop(run, 0.1, Reason.TIMED_OUT)

    with pytest.raises(ProcessLookupError):
        os.killpg(guard.registered[0], 0)
    assert guard.forgotten == guard.registered
    assert (await bench.call("succeed_sync", in_process_pool=True))[0].is_success
    await bench.executor.cleanup(run)


@pytest.mark.parametrize(
    ("name", "args", "reason", "exit_code"), [("die", (5,), Reason.EXITED, 5), ("crash", (), Reason.SIGNALLED, 139)]
)
async def test_a_pooled_function_may_take_its_process_with_it(
    bench: Bench, name: str, args: tuple[int, ...], reason: Reason, exit_code: int
) -> None:
    outcome, _ = await bench.call(name, *args, in_process_pool=True)

    assert (outcome.reason, outcome.exit_code, outcome.is_success) == (reason, exit_code, False)
    assert (await bench.call("succeed_sync", in_process_pool=True))[0].is_success


async def test_a_pooled_function_runs_only_after_the_warden_has_promised(bench: Bench) -> None:
    with pytest.raises(StartFailedError, match="lease"):
        await bench.executor.wait(await bench.start("die", 5, guard=RecordingGuard(refuses=True), in_process_pool=True))


async def test_close_ends_the_worker_processes_and_the_threads(bench: Bench) -> None:
    pid = (await bench.call("process_id", in_process_pool=True))[0].outputs["result"]
    await bench.call("succeed")
    await bench.call("succeed_sync")

    await bench.executor.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    names = [thread.name for thread in threading.enumerate()]
    assert "formicary-functions" not in names


async def test_a_thousand_calls_share_wake_ups(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.call("succeed")
    returns = bench.executor._returns  # type: ignore[attr-defined]  # counting what no caller can see
    deliveries = 0

    def count(deliver: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            nonlocal deliveries
            deliveries += 1
            deliver()

        return counted

    monkeypatch.setattr(returns, "_deliver", count(returns._deliver))
    runs = [await bench.start("succeed") for _ in range(1000)]
    outcomes = [await bench.executor.wait(run) for run in runs]

    assert all(outcome.is_success for outcome in outcomes)
    assert deliveries < 500  # the more, the more often others have the cores


async def test_an_idle_worker_that_died_is_replaced(bench: Bench) -> None:
    pid = (await bench.call("process_id", in_process_pool=True))[0].outputs["result"]
    os.kill(pid, 9)
    while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - the kernel sets no event
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)

    outcome, _ = await bench.call("process_id", in_process_pool=True)

    assert outcome.is_success


async def test_a_sink_that_takes_nothing_does_not_keep_a_stopped_run_from_being_released(bench: Bench) -> None:
    class StuckSink(CollectingSink):
        may_take = asyncio.Event()

        async def write(self, stream: Stream, data: bytes) -> None:
            self.first_write.set()
            await self.may_take.wait()

    sink = StuckSink()
    run = await bench.start("talk_sync", "hello", sink=sink)
    await sink.first_write.wait()

    await bench.executor.stop(run, 0.2, Reason.CANCELLED)

    async with asyncio.timeout(40):
        await bench.executor.released(run)
    assert (await bench.executor.wait(run)).reason is Reason.CANCELLED
    sink.may_take.set()
    await bench.executor.cleanup(run)
