"""What only WEBSOCKET promises: who may connect, what is said, and what comes of silence, nonsense and loss."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest

from executors import remote_messages
from executors.base import Offer, Outcome, Reason, Run, Stream
from executors.errors import ExecutorLostError, StartFailedError
from executors.options import ExecutorOptions
from executors.specs import WebsocketSpec
from executors.testing import CollectingSink, make_attempt
from executors.websocket import WebsocketExecutor
from tests.conformance.executors.remote_workers import TASK, WORK, Crew, OpenExecutor, complete, end_of

SCHEMA = Path(__file__).parents[3] / "docs" / "executors" / "websocket.schema.json"

Begin = Callable[..., Awaitable[Run]]


@pytest.fixture
def begin(executor: WebsocketExecutor, tmp_path: Path) -> Begin:
    count = 0

    async def start(spec: WebsocketSpec = WORK, sink: CollectingSink | None = None) -> Run:
        nonlocal count
        count += 1
        return await executor.start(make_attempt(spec, tmp_path, number=count), sink or CollectingSink())

    return start


async def test_a_worker_gets_the_whole_task_and_its_word_is_the_outcome(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    peer, sink = await crew.peer(executor, "work"), CollectingSink()

    run = await begin(sink=sink)
    task = await peer.hear()
    await peer.say(type="log", task=TASK, text="on it\nstill", stream="stderr")
    await complete(peer, TASK, outputs={"found": [1, 2]}, exit_code=7)

    assert task == {
        "type": "task",
        "task": TASK,
        "job_id": "job-1",
        "task_type": "task",
        "attempt": 1,
        "method": "work",
        "payload": {"n": 1},
        "timeout_s": 60.0,
        "inputs": [],
    }
    assert await end_of(executor, run) == Outcome(Reason.EXITED, 7, True, {"found": [1, 2]})
    assert sink.text(Stream.STDERR) == b"on it\nstill\n"


@pytest.mark.parametrize(
    "message",
    [
        {"type": "result", "task": TASK, "status": "DONE"},
        {"type": "result", "task": TASK, "status": "FAILED", "exit_code": 0},
        {"type": "result", "task": TASK, "status": "COMPLETED", "exitcode": 1},
        {"type": "result", "task": TASK, "status": "COMPLETED", "outputs": [1]},
        {"type": "log", "task": TASK, "text": "x", "stream": "stdin"},
        {"type": "dance"},
        {"task": TASK},
        [],
    ],
    ids=json.dumps,
)
async def test_a_bad_message_is_answered_and_harms_nothing(
    executor: WebsocketExecutor, crew: Crew, begin: Begin, message: Any
) -> None:
    peer = await crew.peer(executor)
    run = await begin()
    await peer.hear()

    await peer.socket.send_json(message)

    error = await peer.hear()
    assert (error["type"], error["code"]) == ("error", "bad_message")
    assert "docs/executors/websocket.md" in error["message"]
    await complete(peer, TASK)
    assert (await end_of(executor, run)).is_success


@pytest.mark.parametrize("nonsense", ["", "{", "[" * 100_000, '{"type":"log","task":"\\ud800","text":""}'])
async def test_what_is_no_json_is_answered(
    executor: WebsocketExecutor, crew: Crew, begin: Begin, nonsense: str
) -> None:
    peer = await crew.peer(executor)

    await peer.socket.send_str(nonsense)
    await peer.socket.send_bytes(b"\xff")

    assert [(await peer.hear())["code"] for _ in range(2)] == ["bad_message"] * 2
    run = await begin()
    await complete(peer, (await peer.hear())["task"])
    assert (await end_of(executor, run)).is_success


async def test_a_message_that_is_too_large_costs_its_sender_the_connection_and_nobody_else(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    loud, calm = await crew.peer(executor, "shout"), await crew.peer(executor)
    run = await begin()
    task = await calm.hear()

    await loud.say(type="log", task=TASK, text="x" * (remote_messages.MAX_MESSAGE_BYTES + 1))

    assert await loud.closed() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    await complete(calm, task["task"])
    assert (await end_of(executor, run)).is_success


async def test_what_is_said_of_a_task_that_is_over_is_answered_and_ignored(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    peer = await crew.peer(executor)
    run = await begin()
    await peer.hear()
    await complete(peer, TASK)

    await complete(peer, TASK, exit_code=9)
    await peer.say(type="log", task="job-1/task/99", text="x")
    await peer.say(type="register", methods=["other"])
    await peer.say(type="ping")

    answers = [await peer.hear() for _ in range(4)]
    assert [answer.get("code", answer["type"]) for answer in answers] == [
        "unknown_task",
        "unknown_task",
        "already_registered",
        "pong",
    ]
    assert (await end_of(executor, run)).exit_code == 0


async def test_a_lost_connection_is_a_lost_attempt_after_all_that_was_said(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    peer, sink = await crew.peer(executor, name="gone"), CollectingSink()
    run = await begin(sink=sink)
    await peer.hear()

    await peer.say(type="log", task=TASK, text="last words")
    await peer.socket.close()

    with pytest.raises(ExecutorLostError, match="worker gone was lost while it had the task"):
        await end_of(executor, run)
    assert sink.text() == b"last words\n"


@pytest.mark.parametrize(("reason", "word"), [(Reason.CANCELLED, "cancelled"), (Reason.TIMED_OUT, "timed_out")])
async def test_a_stop_is_a_message_and_the_answer_ends_the_grace(
    executor: WebsocketExecutor, crew: Crew, begin: Begin, reason: Reason, word: str
) -> None:
    peer = await crew.peer(executor)
    run = await begin()
    await peer.hear()

    stopping = asyncio.create_task(executor.stop(run, 60, reason))
    cancel = await peer.hear()
    await complete(peer, TASK)

    assert cancel == {"type": "cancel", "task": TASK, "reason": word, "grace_s": 60.0}
    async with asyncio.timeout(40):
        await stopping
    assert (await end_of(executor, run)).reason is reason


async def test_a_worker_that_ignores_a_cancel_keeps_its_own_slot_only(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    peer = await crew.peer(executor)
    first = await begin()
    task = await peer.hear()
    await executor.stop(first, 0, Reason.CANCELLED)
    assert (await peer.hear())["type"] == "cancel"
    sink = CollectingSink()

    second = await begin(sink=sink)
    await sink.first_write.wait()
    await complete(peer, task["task"])

    assert b"the only worker for work is full (1 of 1 slots)" in sink.text(Stream.SYSTEM)
    assert (await end_of(executor, first)).reason is Reason.CANCELLED
    await complete(peer, (await peer.hear())["task"])
    assert (await end_of(executor, second)).is_success


async def test_a_task_goes_to_a_worker_with_all_its_tags_and_says_why_it_waits(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    await crew.peer(executor, tags=["linux"], name="other")
    sink = CollectingSink()

    run = await begin(WebsocketSpec(worker_method="work", worker_tags=("gpu", "linux")), sink)
    await sink.first_write.wait()
    peer = await crew.peer(executor, tags=["gpu", "linux", "fast"])
    await complete(peer, (await peer.hear())["task"])

    assert (await end_of(executor, run)).is_success
    reason = b"waiting: no connected worker takes work with tags [gpu, linux]; connected: other"
    assert reason in sink.text(Stream.SYSTEM)


async def test_a_task_that_nobody_could_take_for_too_long_is_not_started(
    open_executor: OpenExecutor, tmp_path: Path
) -> None:
    executor = await open_executor(workers_patience_s=0.05)

    run = await executor.start(make_attempt(WORK, tmp_path), CollectingSink())

    with pytest.raises(StartFailedError, match=r"no connected worker takes work, for 0\.05 s"):
        await end_of(executor, run)


async def test_a_stop_ends_a_task_that_waits(executor: WebsocketExecutor, begin: Begin) -> None:
    sink = CollectingSink()
    run = await begin(sink=sink)
    await sink.first_write.wait()

    await executor.stop(run, 60, Reason.TIMED_OUT)

    outcome = await end_of(executor, run)
    assert (outcome.reason, outcome.message) == (
        Reason.TIMED_OUT,
        "the task was stopped while it waited for a worker",
    )


async def test_a_task_that_is_handed_out_while_it_is_stopped_is_cancelled_at_its_worker(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    for turns in range(12):  # after one of them, the worker has room again while the stop is under way
        peer = await crew.peer(executor)
        first, sink = await begin(), CollectingSink()
        busy_with = await peer.hear()
        second = await begin(sink=sink)
        await sink.first_write.wait()

        await complete(peer, busy_with["task"])
        for _ in range(turns):
            await asyncio.sleep(0)
        await executor.stop(second, 0, Reason.CANCELLED)

        assert (await end_of(executor, first)).is_success
        await peer.say(type="ping")
        heard = []
        while "pong" not in heard:
            heard.append((await peer.hear())["type"])
        assert heard in (["pong"], ["task", "cancel", "pong"])
        await peer.socket.close()


async def test_work_is_spread_and_slots_are_kept(executor: WebsocketExecutor, crew: Crew, begin: Begin) -> None:
    peers = [await crew.peer(executor, slots=2, name=f"w{number}") for number in range(3)]

    runs = [await begin() for _ in range(7)]
    tasks = [[(await peer.hear())["task"] for _ in range(2)] for peer in peers]
    await complete(peers[1], tasks[1][0])
    seventh = (await peers[1].hear())["task"]

    assert len({seventh, *(task for some in tasks for task in some)}) == 7
    for peer, some in zip(peers, tasks, strict=True):
        for task in some:
            await complete(peer, task)
    await complete(peers[1], seventh)
    assert all([(await end_of(executor, run)).is_success for run in runs])


async def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_more(
    executor: WebsocketExecutor, crew: Crew, begin: Begin
) -> None:
    old = await crew.peer(executor, slots=2)
    first = await begin()
    task = await old.hear()
    await old.say(type="drain")
    await old.say(type="ping")
    assert (await old.hear())["type"] == "pong"

    second = await begin()
    new = await crew.peer(executor)
    await complete(new, (await new.hear())["task"])
    await complete(old, task["task"])

    assert (await end_of(executor, first)).is_success
    assert (await end_of(executor, second)).is_success


async def test_what_workers_offer_is_told_when_it_changes(open_executor: OpenExecutor, crew: Crew) -> None:
    told: asyncio.Queue[tuple[Offer, ...]] = asyncio.Queue()
    executor = WebsocketExecutor(ExecutorOptions(workers_listen=("127.0.0.1", 0)))
    executor.watch_offers(told.put_nowait)
    await executor.check()

    peer = await crew.peer(executor, "b", "a", tags=["t"])
    await crew.peer(executor, "a", "b", tags=["t"])
    other = await crew.peer(executor, "c")
    await other.socket.close()

    both = Offer(("a", "b"), ("t",))
    async with asyncio.timeout(40):
        assert [await told.get() for _ in range(3)] == [(both,), (both, Offer(("c",))), (both,)]
        code, _ = await asyncio.gather(peer.closed(), executor.close())
        assert await told.get() == ()
    assert code == aiohttp.WSCloseCode.GOING_AWAY


async def test_the_documented_schema_is_that_of_the_messages(executor: WebsocketExecutor, crew: Crew) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    checker = jsonschema.Draft202012Validator(schema)

    peer = await crew.dial(executor)
    await peer.say(type="register", methods=["work"])

    assert schema == json.loads(json.dumps(remote_messages.json_schema()))
    checker.validate(await peer.hear())
    checker.validate({"type": "result", "task": TASK, "status": "FAILED", "outputs": {"a": 1}})
    assert not checker.is_valid({"type": "result", "task": TASK})
