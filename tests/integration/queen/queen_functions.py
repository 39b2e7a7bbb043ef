"""Functions that the tests' PYTHON tasks call."""

import asyncio


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


async def rest() -> None:
    await asyncio.sleep(0.5)


def explode() -> None:
    raise ValueError("as asked")
