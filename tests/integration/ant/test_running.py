"""An ant runs what its owner dispatches, and says how it ended."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from executors.specs import PythonSpec
from formicary.ant.ant import Ant
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus, Outgoing
from formicary.events import topics
from formicary.events.orders import Fetch
from formicary.events.tasks import TaskDeclined, TaskFinished, TaskStarted
from formicary.model.definition import ArtifactsPolicy, ArtifactWhen
from formicary.model.jobs import ArtifactRef
from formicary.testing.owner import ScriptedOwner, dummy, order, python, shell

AntMaker = Callable[..., Awaitable[Ant]]


async def test_a_script_ends_with_its_exit_code_its_outputs_and_its_log(owner: ScriptedOwner) -> None:
    end = await owner.run(
        shell("echo hello", "echo '::set-output name=rows::3'", 'echo "name=ünï" >> "$FORMICARY_OUTPUT"', "exit 7")
    )
    assert (end.reason, end.exit_code, end.is_success) == ("exited", 7, False)
    assert end.outputs == {"rows": 3, "name": "ünï"}
    assert [(stream, text) for _, _, stream, text in await owner.lines()] == [("stdout", "hello")]


async def test_a_function_ends_with_its_result(owner: ScriptedOwner) -> None:
    end = await owner.run(python("math:factorial", 5))
    assert (end.is_success, end.outputs) == (True, {"result": 120})


async def test_an_executor_that_cannot_start_is_an_error_of_its_own(owner: ScriptedOwner) -> None:
    end = await owner.run(dummy(fail_start=True))
    assert (end.reason, end.error_code, end.is_success) == ("error", "ERR_EXECUTOR", False)


async def test_a_spec_of_another_method_is_refused(owner: ScriptedOwner) -> None:
    end = await owner.run(order("SHELL", PythonSpec(function="math:sqrt")))
    assert (end.reason, end.error_code) == ("error", "ERR_VALIDATION")


async def test_an_order_that_cannot_be_read_fails_its_attempt(owner: ScriptedOwner) -> None:
    raw = msgspec.Raw(msgspec.msgpack.encode(["no", "order"]))
    await owner.send(owner.dispatch(dummy(), order=raw))
    end = await owner.finished()
    assert (end.reason, end.error_code) == ("error", "ERR_VALIDATION")


async def test_a_method_that_the_ant_does_not_offer_is_declined(owner: ScriptedOwner) -> None:
    await owner.send(owner.dispatch(order("DOCKER", PythonSpec(function="a:b"))))
    assert (await owner.report(TaskDeclined)).reason == "unknown_method"


async def test_a_run_that_exceeds_its_time_limit_is_stopped(owner: ScriptedOwner) -> None:
    end = await owner.run(shell("sleep 60", timeout_s=0.2))
    assert (end.reason, end.is_success) == ("timed_out", False)


async def test_a_running_attempt_is_stopped_on_request(owner: ScriptedOwner) -> None:
    await owner.send(owner.dispatch(shell("sleep 60")))
    await owner.report(TaskStarted)
    await owner.send(owner.cancel())
    assert (await owner.finished()).reason == "cancelled"


async def test_a_cancel_for_an_attempt_that_is_not_held_says_so(owner: ScriptedOwner) -> None:
    await owner.send(owner.cancel(task_no=9))
    assert (await owner.report(TaskDeclined, 9)).reason == "not_held"


async def test_what_waits_is_recalled_or_cancelled_without_having_run(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(*(owner.dispatch(shell("sleep 60"), number) for number in range(3)))
    await owner.report(TaskStarted, 0)
    await owner.send(owner.recall(0), owner.recall(1), owner.cancel(2))
    assert (await owner.report(TaskDeclined, 1)).reason == "recalled"
    cancelled = await owner.report(TaskFinished, 2)
    assert (cancelled.reason, cancelled.started_at) == ("cancelled", None)
    await owner.send(owner.cancel(0))
    assert (await owner.report(TaskFinished, 0)).started_at is not None


async def test_slots_and_prefetch_bound_what_is_accepted(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1, prefetch=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(*(owner.dispatch(shell("sleep 60"), number) for number in range(3)))
    declined = await owner.report(TaskDeclined, 2)
    assert (declined.reason, declined.slots_free) == ("busy", 0)


async def test_what_waits_runs_in_its_order(make_ant: AntMaker, bus: Bus, tmp_path: Path) -> None:
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    file = tmp_path / "order"
    await owner.send(*(owner.dispatch(shell(f"echo {number} >> {file}"), number) for number in range(5)))
    for number in range(5):
        await owner.finished(number)
    assert file.read_text().split() == ["0", "1", "2", "3", "4"]


async def test_a_copy_of_a_dispatch_is_neither_run_nor_answered(owner: ScriptedOwner, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    dispatch = owner.dispatch(shell(f"echo run >> {file}"))
    await owner.send(dispatch, dispatch)
    await owner.finished()
    await owner.send(dispatch)
    await owner.run(dummy(), task_no=1)
    assert file.read_text() == "run\n"
    assert sum(isinstance(event, TaskFinished | TaskDeclined) for event in owner.reports) == 2


async def test_a_dispatch_to_a_former_incarnation_or_of_an_older_epoch_is_declined(owner: ScriptedOwner) -> None:
    await owner.send(owner.dispatch(dummy(), 1, incarnation="ant-1@former"))
    assert (await owner.report(TaskDeclined, 1)).reason == "wrong_incarnation"
    await owner.run(dummy(), epoch=5)
    await owner.send(owner.dispatch(dummy(), 2, epoch=4))
    assert (await owner.report(TaskDeclined, 2)).reason == "old_epoch"


async def test_the_start_of_a_short_attempt_is_not_reported_apart(owner: ScriptedOwner) -> None:
    await owner.run(dummy())
    assert not [event for event in owner.reports if isinstance(event, TaskStarted)]


async def test_artifacts_travel_to_the_next_task_at_the_same_paths(owner: ScriptedOwner, store: LocalStore) -> None:
    policy = ArtifactsPolicy(paths=("out/**",), exclude=("out/*.tmp",))
    script = "mkdir -p out/deep; echo 1 > out/a.csv; echo x > out/b.tmp; echo 2 > out/deep/c.csv; cp out/a.csv"
    end = await owner.run(shell(script + ' "$FORMICARY_RESULT_DIR/sum"', artifacts=policy))
    assert [artifact.name for artifact in end.artifacts] == ["out/a.csv", "out/deep/c.csv", "result/sum"]
    fetch = Fetch("t", 0, 1, end.artifacts)
    end = await owner.run(shell("cat out/a.csv out/deep/c.csv result/sum; ls out", fetches=(fetch,)), task_no=1)
    assert end.is_success
    assert [text for *_, text in await owner.lines()] == ["1", "2", "1", "a.csv", "deep"]


async def test_a_program_that_one_task_leaves_another_can_run(owner: ScriptedOwner) -> None:
    script = (
        "printf '#!/bin/sh\\necho ran\\n' > run; chmod 700 run",
        "echo data > plain",
        'cp run "$FORMICARY_RESULT_DIR"',
    )
    end = await owner.run(shell(*script, artifacts=ArtifactsPolicy(paths=("run", "plain"))))
    assert {ref.name: ref.is_executable for ref in end.artifacts} == {"plain": False, "result/run": True, "run": True}

    look = ("./run && result/run", "test ! -x plain")
    end = await owner.run(shell(*look, fetches=(Fetch("t", 0, 1, end.artifacts),)), task_no=1)
    assert end.is_success, end.error_message
    assert [text for *_, text in await owner.lines()] == ["ran", "ran"]


async def test_a_fetched_artifact_can_be_read_by_whomever_a_script_becomes(owner: ScriptedOwner) -> None:
    end = await owner.run(shell("umask 077; touch a b; chmod u+x b", artifacts=ArtifactsPolicy(paths=("a", "b"))))
    await owner.run(shell("stat -c %a a b", fetches=(Fetch("t", 0, 1, end.artifacts),)), task_no=1)
    assert [text for *_, text in await owner.lines()] == ["644", "755"]


async def test_artifacts_are_kept_after_the_ends_that_the_policy_names(owner: ScriptedOwner) -> None:
    ends = {}
    for number, when in enumerate(ArtifactWhen):
        policy = ArtifactsPolicy(paths=("f",), when=when)
        ends[when] = await owner.run(shell("touch f; exit 1", artifacts=policy), task_no=number)
    assert {when: len(end.artifacts) for when, end in ends.items()} == {
        ArtifactWhen.ON_SUCCESS: 0,
        ArtifactWhen.ON_FAILURE: 1,
        ArtifactWhen.ALWAYS: 1,
    }
    assert all(end.exit_code == 1 for end in ends.values())


async def test_a_symlink_out_of_the_folder_fails_the_task_and_nothing_is_stored(
    owner: ScriptedOwner, store: LocalStore
) -> None:
    policy = ArtifactsPolicy(paths=("a", "z"))
    end = await owner.run(shell("echo 1 > a; ln -s /etc/passwd z", artifacts=policy))
    assert (end.error_code, end.artifacts) == ("ERR_ARTIFACT", ())
    assert "symlink" in (end.error_message or "")
    assert [key async for key in store.list("")] == []


async def test_a_fetched_artifact_that_climbs_out_is_refused(owner: ScriptedOwner) -> None:
    artifact = ArtifactRef(name="../../evil", sha256="0" * 64, size_bytes=1)
    end = await owner.run(shell("echo ran", fetches=(Fetch("t", 0, 1, (artifact,)),)))
    assert end.error_code == "ERR_ARTIFACT"
    assert "relative path" in (end.error_message or "")


def overwrite_blobs(store: Path, text: str) -> None:
    for path in store.glob("blobs/**/*"):
        if path.is_file():
            path.write_text(text)


async def test_a_fetched_artifact_with_other_bytes_fails_the_task(owner: ScriptedOwner, tmp_path: Path) -> None:
    end = await owner.run(shell("echo 1 > a", artifacts=ArtifactsPolicy(paths=("a",))))
    overwrite_blobs(tmp_path / "artifacts", "2")
    end = await owner.run(shell("cat a", fetches=(Fetch("t", 0, 1, end.artifacts),)), task_no=1)
    assert (end.error_code, end.reason) == ("ERR_ARTIFACT", "error")


async def test_outputs_beyond_the_limit_fail_the_task_and_name_the_key(owner: ScriptedOwner) -> None:
    end = await owner.run(shell('printf "ok=1\\nbig=" > "$FORMICARY_OUTPUT"; head -c 300000 /dev/zero | tr "\\0" x >>'
                                ' "$FORMICARY_OUTPUT"'))  # fmt: skip
    assert end.error_code == "ERR_VALIDATION"
    assert "outputs.big" in (end.error_message or "")


async def test_an_output_file_that_became_a_pipe_does_not_hang_the_ant(owner: ScriptedOwner) -> None:
    end = await owner.run(shell('mkfifo "$FORMICARY_OUTPUT"'))
    assert end.error_code == "ERR_VALIDATION"


async def test_a_function_that_ignores_a_stop_keeps_its_slot_until_it_returns(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(owner.dispatch(python("time:sleep", 2.0), 0), owner.dispatch(python("math:factorial", 5), 1))
    await owner.report(TaskStarted, 0)
    await owner.send(owner.cancel(0, grace_s=0.0))
    stopped, following = await owner.finished(0), await owner.finished(1)
    assert stopped.reason == "cancelled"
    assert stopped.started_at is not None
    assert following.started_at is not None
    assert (stopped.finished_at - stopped.started_at).total_seconds() >= 2.0
    assert (following.started_at - stopped.started_at).total_seconds() >= 2.0
    assert "the function runs on" in [text for *_, text in await owner.lines()][-1]


async def test_secrets_are_masked_in_the_log_and_in_messages(owner: ScriptedOwner) -> None:
    script = "printf 'my hun'; sleep 0.05; echo 'ter2 is here'; printf 'two\\nlines\\n'"
    await owner.run(shell(script, secrets=("hunter2", "two\nlines")))
    assert [text for *_, text in await owner.lines()] == ["my [MASKED] is here", "[MASKED]"]


async def test_no_folder_is_left_behind(owner: ScriptedOwner, ant: Ant, tmp_path: Path) -> None:
    await owner.run(shell("mkdir -p a/b; touch a/b/c; chmod 0 a/b"))
    await owner.run(python("math:factorial", 1), task_no=1)
    await ant.drain()
    assert list((tmp_path / "home/ants/ant-1/work").iterdir()) == []


async def test_all_log_lines_are_published_before_the_end(owner: ScriptedOwner, bus: Bus) -> None:
    await owner.run(shell("seq 20000"))
    assert [text for *_, text in await owner.lines()] == [str(number) for number in range(1, 20001)]


async def test_a_drain_hands_back_what_waits_and_finishes_what_runs(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    listener = await bus.subscribe([topics.ANTS], None, "listener")
    await owner.send(owner.dispatch(shell("sleep 0.3"), 0), owner.dispatch(dummy(), 1))
    await owner.report(TaskStarted, 0)
    await ant.drain()
    assert (await owner.report(TaskDeclined, 1)).reason == "draining"
    assert (await owner.finished(0)).is_success
    said = [event for item in await listener.receive(100, 40.0) for event in item.events]
    assert [(type(event).__name__, getattr(event, "attempts", None)) for event in said][-1] == ("AntLeft", ())


async def test_a_stop_gives_running_attempts_away_without_a_result(make_ant: AntMaker, bus: Bus) -> None:
    ant = await make_ant(slots=1)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(owner.dispatch(shell("sleep 60"), 0))
    await owner.report(TaskStarted, 0)
    listener = await bus.subscribe([topics.ANTS], None, "listener")
    await ant.stop()
    said = [event for item in await listener.receive(100, 40.0) for event in item.events]
    assert [held.task_no for event in said for held in getattr(event, "attempts", ())] == [0]
    assert not [event for event in await owner.read(0.01) if isinstance(event, TaskFinished)]


async def test_bytes_that_are_no_event_do_not_stop_the_inbox(owner: ScriptedOwner, bus: Bus) -> None:
    await bus.publish([Outgoing("formicary.ant.ant-1", "ant-1", owner.dispatch(dummy(), 7, number="x"))])
    assert (await owner.finished(7)).error_code == "ERR_VALIDATION"
    assert (await owner.run(dummy())).is_success
