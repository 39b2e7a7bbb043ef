"""Topics of ants that are gone: which go, which stay, and when."""

import math

import pytest

from brokers.base import Message
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.bus import Bus
from formicary.ids import Incarnation
from formicary.queen.inboxes import GONE_S, LIST_S, LOOK_S, Inboxes
from formicary.queen.registry import AntRegistry
from formicary.testing.clock import FakeClock
from tests.unit.queen.conftest import registered

INBOX, REPLIES = "formicary.ant.a", "formicary.replies.a"


class Colony:
    """A queen's view of ants and broker, and what she looks after."""

    def __init__(self) -> None:
        self.clock, self.ants, self.broker = FakeClock(), AntRegistry(), MemoryBroker(MemoryServer())
        self.epoch: int | None = 1
        self.listening_since: float | None = -math.inf
        bus = Bus(self.broker, "queen", self.clock)
        self.inboxes = Inboxes(bus, self.ants, self, self.clock, lambda: self.listening_since)

    def leader_epoch(self) -> int | None:
        return self.epoch

    async def after(self, seconds: float) -> list[str]:
        """Returns the ants whose topics were deleted within this time, of looks as the service makes them."""
        gone = []
        for _ in range(int(seconds / LOOK_S)):
            gone += await self.inboxes.run_once()
            await self.clock.advance(LOOK_S)
        return [*gone, *await self.inboxes.run_once()]


@pytest.fixture
async def colony() -> Colony:
    colony = Colony()
    await colony.broker.open()
    await colony.broker.publish([Message(topic, "a", b"x") for topic in (INBOX, REPLIES)])
    return colony


async def test_what_an_ant_of_a_former_run_left_is_deleted_an_hour_after_it_was_found(colony: Colony) -> None:
    assert await colony.after(GONE_S - LOOK_S) == []
    assert await colony.after(LIST_S) == ["a"]
    assert await colony.broker.topics("formicary.") == []


async def test_topics_of_a_living_ant_stay_for_ever(colony: Colony) -> None:
    colony.ants.register(registered("a"), 0.0)
    assert await colony.after(5 * GONE_S) == []
    assert sorted(await colony.broker.topics("formicary.")) == [INBOX, REPLIES]


async def test_the_hour_begins_when_the_ant_was_live_last(colony: Colony) -> None:
    for life in (1, 2, 3):
        colony.ants.register(registered("a", life), 0.0)
        assert await colony.after(LIST_S) == []
        colony.ants.lose(Incarnation(f"a@{life}"))
        assert await colony.after(GONE_S - LIST_S) == []
    assert await colony.after(2 * LIST_S) == ["a"]


async def test_a_queen_that_was_cut_off_deletes_nothing_before_she_has_listened_for_an_hour(colony: Colony) -> None:
    colony.listening_since = None
    assert await colony.after(2 * GONE_S) == []
    colony.listening_since = colony.clock.boottime()
    assert await colony.after(GONE_S - LOOK_S) == []
    assert await colony.after(LIST_S) == ["a"]


async def test_only_the_leading_queen_deletes(colony: Colony) -> None:
    colony.epoch = None
    assert await colony.after(2 * GONE_S) == []
    colony.epoch = 2
    assert await colony.after(GONE_S + LIST_S) == ["a"]


async def test_topics_of_other_services_and_dead_letters_stay(colony: Colony) -> None:
    others = ["formicary.ant.a.dead", "formicary.ants", "formicary.replies.shop", "orders"]
    await colony.broker.ensure_topics(others)
    assert await colony.after(GONE_S + LIST_S) == ["a"]
    assert sorted(await colony.broker.topics("")) == others
