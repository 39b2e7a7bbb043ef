"""The functions that benchmark jobs call."""

import asyncio


async def nothing() -> None:
    """Does nothing, asynchronously."""


async def second() -> None:
    """Sleeps for one second."""
    await asyncio.sleep(1.0)
