"""Letting go of what was read of an inbox; over the memory broker."""

import pytest

from brokers.base import START
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.ant.inbox import Inbox
from formicary.bus import Bus, Outgoing, Packet
from formicary.clock import SystemClock
from formicary.events.tasks import BarrierReached


class SetClock(SystemClock):
    """Shows the time that a test sets."""

    now_s = 0.0

    def boottime(self) -> float:
        return self.now_s


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_shared_inbox_is_trimmed_behind_what_was_read_ten_minutes_ago(is_shared: bool) -> None:
    broker, clock = MemoryBroker(MemoryServer()), SetClock()
    await broker.open()
    bus = Bus(broker, "queen", clock)
    packets: list[Packet] = []
    inbox = Inbox(bus, clock, "inbox", is_shared, packets.extend)
    await inbox.open()
    kept: list[int] = []
    for minute in range(14):
        clock.now_s = minute * 60.0
        for number in range(100):
            await bus.publish([Outgoing("inbox", "ant", BarrierReached(shard=1, epoch=1, number=number))])
        while len(packets) < (minute + 1) * 100:
            await inbox.read_once()
        kept.append(len(await broker.read("inbox", START, 10_000, 0.0)))
    await broker.close()
    if is_shared:
        assert kept == [*range(100, 1001, 100), 1000, 1000, 1000, 1000]
    else:
        assert max(kept) < 400
