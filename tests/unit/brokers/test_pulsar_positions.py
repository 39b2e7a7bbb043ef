"""Positions in Pulsar, and receiving without loss."""

import asyncio

import pytest

from brokers.base import Position
from brokers.errors import PositionTrimmedError
from brokers.pulsar_link import Pump
from brokers.pulsar_readers import parse_position, position_of


def test_a_position_names_ledger_and_entry() -> None:
    assert parse_position("t", position_of((12, 345))) == (12, 345)


@pytest.mark.parametrize("position", [b"", b"12", b"a:b", b"1:-1", b"\x00\x01"])
def test_a_position_of_another_broker_is_not_in_the_log(position: bytes) -> None:
    with pytest.raises(PositionTrimmedError):
        parse_position("t", Position(position))


async def test_what_arrived_while_nobody_waited_is_taken_next_and_in_order() -> None:
    arriving: asyncio.Queue[int] = asyncio.Queue()
    pump = Pump(arriving.get, width=4)
    waiting = asyncio.create_task(asyncio.wait({pump.waiting()}))
    await asyncio.sleep(0)
    waiting.cancel()
    for number in range(10):
        arriving.put_nowait(number)
    taken: list[int] = []
    while len(taken) < 10:
        await asyncio.wait({pump.waiting()})
        taken += pump.take(3)
    assert taken == list(range(10))
    pump.stop()


async def test_a_failure_is_raised_after_what_came_before_it() -> None:
    async def receive() -> int:
        if next(numbers) == 2:
            raise ConnectionError
        return 1

    numbers = iter(range(10))
    pump = Pump(receive, width=3)
    await asyncio.wait({pump.waiting()})
    await asyncio.sleep(0)
    assert pump.take(10) == [1, 1]
    with pytest.raises(ConnectionError):
        pump.take(10)
    pump.stop()
