"""What was given up is found wherever it lies."""

import pytest

from brokers.base import DEAD_SUFFIX, REASON_HEADER, Message
from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from formicary.events import topics
from formicary.ids import AntId
from tests.e2e.colony.leftovers import look


@pytest.mark.parametrize("topic", [topics.COMMANDS, topics.LOGS, topics.results(3), topics.inbox(AntId("a1"), False)])
async def test_a_dead_letter_of_any_topic_is_found(topic: str) -> None:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    assert await look(broker, []) == []

    await broker.publish([Message(topic + DEAD_SUFFIX, "k", b"x", {REASON_HEADER: "unreadable"})])

    (found,) = await look(broker, [])
    assert topic + DEAD_SUFFIX in found
    assert "unreadable" in found
    await broker.close()
