"""Calls to a driver: cancelling one ends its caller, whatever the driver makes of it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from brokers.calls import Calls
from brokers.errors import BrokerClosedError


@pytest.fixture
def calls() -> Calls:
    opened = Calls("broker")
    opened.open()
    return opened


def swallowing(begun: asyncio.Event) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "answered at the same moment"
        return "never"

    return work


async def test_a_cancellation_that_the_driver_swallows_is_raised_all_the_same(calls: Calls) -> None:
    begun = asyncio.Event()
    caller = asyncio.create_task(calls.run(swallowing(begun)))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_time_limit_holds_where_the_driver_swallows_its_cancellation(calls: Calls) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await calls.run(swallowing(asyncio.Event()))
    assert await calls.run(lambda: asyncio.sleep(0, "usable")) == "usable"


async def test_closing_ends_a_call_with_an_error_of_its_own(calls: Calls) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    caller = asyncio.create_task(calls.run(work))
    await begun.wait()
    calls.close()
    with pytest.raises(BrokerClosedError):
        await caller
