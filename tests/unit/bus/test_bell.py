"""Owners elsewhere that are told of commands, while the broker comes and goes."""

import asyncio
from collections.abc import Sequence
from typing import Any

from brokers.base import START, Message
from brokers.errors import BrokerUnavailableError
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.bell import Bell
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.jobs import JobCommandIssued
from formicary.queen.watch import JobWatch


class Away(MemoryBroker):
    """Cannot be reached until told that it is back."""

    def __init__(self) -> None:
        super().__init__(MemoryServer())
        self.is_back = False
        self.asked = asyncio.Event()

    async def publish(self, messages: Sequence[Message]) -> None:
        self.asked.set()
        if not self.is_back:
            raise BrokerUnavailableError("memory://", "gone")
        await super().publish(messages)


async def test_owners_are_told_once_each_when_the_broker_is_back() -> None:
    broker = Away()
    await broker.open()
    bus = Bus(broker, "queen", SystemClock())
    bell = Bell(JobWatch(), bus)

    bell.command(3)
    await broker.asked.wait()
    for shard in (4, 5, 4):
        bell.command(shard)
    broker.is_back = True

    for shard in (3, 4, 5):
        (packet,) = await bus.read(topics.launch(shard), START, 10, 5.0)
        assert packet.events == (JobCommandIssued(shard=shard),)
    await bell.close()


async def test_a_queen_that_leaves_while_the_broker_is_away_says_nothing_more() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    broker = Away()
    await broker.open()
    bell = Bell(JobWatch(), Bus(broker, "queen", SystemClock()))
    bell.command(3)
    await broker.asked.wait()

    await bell.close()
    await bell.close()
    await broker.close()

    assert not [task for task in asyncio.all_tasks() if task.get_name() == "bell"]
    assert not complaints
