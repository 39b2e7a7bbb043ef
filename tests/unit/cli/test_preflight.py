"""Checks before a start."""

import asyncio

from brokers.errors import UnknownBrokerError
from formicary.cli.preflight import Check, Finding, make_checks


async def test_checks_are_made_side_by_side() -> None:
    """Each waits for the other: one after the other, neither would end."""
    barrier = asyncio.Barrier(2)

    async def meets() -> str:
        await barrier.wait()
        return "met"

    found = await make_checks([Check("one", lambda: meets), Check("two", lambda: meets)])

    assert found == [Finding("ok", "one", "met"), Finding("ok", "two", "met")]


async def test_what_cannot_even_be_made_is_wrong_and_keeps_its_place() -> None:
    def unmade() -> None:
        raise UnknownBrokerError("no broker\nspeaks this")

    async def fine() -> str:
        return "fine"

    found = await make_checks([Check("broker", unmade), Check("home", lambda: fine)])  # type: ignore[arg-type] # raises

    assert found == [Finding("wrong", "broker", "no broker speaks this"), Finding("ok", "home", "fine")]
