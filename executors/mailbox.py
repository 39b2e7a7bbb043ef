"""What somebody far away says about one run, on its way to the run's sink."""

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: What waits for a slow sink before whoever writes has to wait, in bytes.
ROOM_BYTES: Final = 256 * 1024


class Mailbox(Generic[T]):
    """A queue with room for ``ROOM_BYTES``, and a last word that always fits.

    ``put`` waits while there is no room; after ``close`` it returns at once, and what is put is dropped.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._error: Exception | None = None
        self._is_closed = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_news = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether ``put`` would wait."""
        return not self._has_room.is_set()

    async def put(self, item: T, size_bytes: int) -> None:
        """Adds an item; returns when there was room for it."""
        await self._has_room.wait()
        self._add(item, size_bytes)

    def end(self, item: T) -> None:
        """Adds the last item, whether there is room or not."""
        self._add(item, 0)

    def fail(self, error: Exception) -> None:
        """Has ``get`` raise the error once everything before it was taken."""
        self._error = self._error or error
        self._has_news.set()

    async def get(self) -> T:
        """Returns the next item.

        Raises:
            Exception: what ``fail`` was given.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            self._has_news.clear()
            await self._has_news.wait()
        item, size_bytes = self._items.popleft()
        self._bytes -= size_bytes
        if self._bytes < ROOM_BYTES:
            self._has_room.set()
        return item

    def close(self) -> None:
        """Drops everything, now and later."""
        self._is_closed = True
        self._items.clear()
        self._has_room.set()

    def _add(self, item: T, size_bytes: int) -> None:
        if self._is_closed:
            return
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        if self._bytes >= ROOM_BYTES:
            self._has_room.clear()
        self._has_news.set()
