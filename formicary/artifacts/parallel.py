"""The same work for many things, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

#: Requests of one caller that are under way at the same time.
AT_ONCE: Final = 8


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """Does the work for all items, begun in their order; the first error ends it and is raised."""
    waiting = iter(items)

    async def take(first: T) -> None:
        await work(first)
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for first in islice(waiting, at_once):
                group.create_task(take(first))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
