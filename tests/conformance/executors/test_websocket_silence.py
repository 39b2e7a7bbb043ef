"""What the ant of a WEBSOCKET task takes for the silence of a worker, and what not."""

import asyncio
import time
from pathlib import Path

import pytest

from executors.base import Stream
from executors.errors import ExecutorLostError
from executors.mailbox import ROOM_BYTES
from executors.testing import CollectingSink, make_attempt
from tests.conformance.executors.remote_workers import TASK, WORK, Crew, OpenExecutor, complete, end_of


async def test_a_worker_that_answers_no_ping_is_lost(open_executor: OpenExecutor, crew: Crew, tmp_path: Path) -> None:
    executor = await open_executor(workers_heartbeat_s=0.05)
    run = await executor.start(make_attempt(WORK, tmp_path), CollectingSink())
    peer = await crew.dial(executor, autoping=False)
    await peer.say(type="register", methods=["work"])

    with pytest.raises(ExecutorLostError, match="no sign of life"):
        await end_of(executor, run)


async def test_a_pause_of_the_ant_is_no_silence_of_its_workers(
    open_executor: OpenExecutor, crew: Crew, tmp_path: Path
) -> None:
    executor = await open_executor(workers_heartbeat_s=0.1)
    peer = await crew.peer(executor)
    run = await executor.start(make_attempt(WORK, tmp_path), CollectingSink())
    await peer.hear()

    time.sleep(0.5)  # noqa: ASYNC251 - nothing of the ant runs meanwhile, as where it is stopped
    with pytest.raises(TimeoutError):  # but pings, which are answered
        async with asyncio.timeout(0.5):
            await peer.socket.receive()
    await complete(peer, TASK)

    assert (await end_of(executor, run)).is_success


async def test_a_slow_log_slows_its_worker_down_and_is_not_taken_for_silence(
    open_executor: OpenExecutor, crew: Crew, tmp_path: Path
) -> None:
    executor = await open_executor(workers_heartbeat_s=0.05)
    sink, text = BlockedSink(), "x" * 65_535
    peer = await crew.peer(executor)
    run = await executor.start(make_attempt(WORK, tmp_path), sink)
    await peer.hear()
    count = 200

    async def talk() -> None:
        for _ in range(count):
            await peer.say(type="log", task=TASK, text=text)
        await complete(peer, TASK)

    talking = asyncio.create_task(talk())
    assert (await asyncio.wait({talking}, timeout=0.5))[0] == set()
    taken = run.handle.ticket.inbox._bytes
    sink.opened.set()

    assert (await end_of(executor, run)).is_success
    assert taken < ROOM_BYTES + len(text) + 2
    assert sink.sizes[Stream.STDOUT] == count * (len(text) + 1)
    await talking


class BlockedSink(CollectingSink):
    """Takes no output of the task until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()

    async def write(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            await self.opened.wait()
        await super().write(stream, data)
