"""Receiving from servers whose own receive must not be cancelled: one fetch at a time, kept over cancellations."""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable

from brokers.base import Delivery, Subscription
from brokers.calls import end_task
from brokers.errors import BrokerClosedError, BrokerUnavailableError
from brokers.reconnect import Backoff


class PullingSubscription(Subscription):
    """Fetches when somebody waits, at most what was asked for, and keeps what nobody took for the next call.

    A cancelled ``receive`` leaves the fetch running: what it brings is not lost, and memory is bounded by one fetch.
    """

    def __init__(self) -> None:
        self._buffer: deque[Delivery] = deque()
        self._fetch: asyncio.Task[None] | None = None
        self._closed: asyncio.Event = asyncio.Event()

    @abstractmethod
    async def _pull(self, max_count: int) -> list[Delivery]:
        """Returns what the server has, waiting a moment for it; raises ``BrokerUnavailableError`` where it is lost."""

    def _next_due_s(self) -> float | None:
        """Moves what has become due into the buffer; returns the seconds until the next, if there is one."""
        return None

    async def receive(self, max_count: int, timeout_s: float) -> list[Delivery]:
        """Waits for deliveries; while the server is lost it goes on trying until the time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self._check_open()
            due_s = self._next_due_s()
            if self._buffer:
                return [self._buffer.popleft() for _ in range(min(max_count, len(self._buffer)))]
            left_s = deadline - loop.time()
            if left_s <= 0:
                return []
            await self._wait_for_fetch(max_count, left_s if due_s is None else min(left_s, due_s))

    async def _wait_for_fetch(self, max_count: int, timeout_s: float) -> None:
        if self._fetch is None:
            self._fetch = asyncio.create_task(self._fetch_into_buffer(max_count))
        fetch = self._fetch
        await asyncio.wait({fetch}, timeout=timeout_s)
        if fetch.done():
            if self._fetch is fetch:
                self._fetch = None
            if not fetch.cancelled():
                fetch.result()

    async def _fetch_into_buffer(self, max_count: int) -> None:
        backoff = Backoff()
        while not self._buffer and not self._closed.is_set():
            try:
                pulled = await self._pull(max_count)
                self._buffer.extend(pulled)  # not before: what waits may have been sorted out meanwhile
                backoff.reset()
            except BrokerUnavailableError:
                await asyncio.sleep(backoff.pause_s())

    async def _insist(self, call: Callable[[], Awaitable[None]]) -> None:
        """Repeats a call that is safe to repeat until the server took it, or this subscription is closed."""
        backoff = Backoff()
        while True:
            self._check_open()
            try:
                return await call()
            except BrokerUnavailableError:
                await asyncio.sleep(backoff.pause_s())

    async def _stop_fetching(self) -> None:
        await end_task(self._fetch)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise BrokerClosedError("subscription")
