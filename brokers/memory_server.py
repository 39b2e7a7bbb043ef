"""What the brokers of one memory:// name share: topics, listeners, and who waits for them."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from typing import Final, Protocol
from weakref import WeakValueDictionary

from brokers.base import Message
from brokers.memory_topics import Topic

#: Bytes that one topic holds before ``publish`` waits.
LIMIT_BYTES: Final = 64 * 1024 * 1024


class Listener(Protocol):
    """Who hears a topic from now on."""

    def push(self, message: Message) -> None:
        """Takes a message; must not block."""
        ...


class MemoryServer:
    """The topics; what brokers of one name share."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._life = os.urandom(8)
        self._next_offset = 0
        self._topics: dict[str, Topic] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._serial = 0

    def topic(self, name: str) -> Topic:
        """Returns a topic, made where there is none."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, self._life, self._next_offset)
        return topic

    def find(self, name: str) -> Topic | None:
        """Returns a topic if there is one."""
        return self._topics.get(name)

    def names(self, prefix: str) -> list[str]:
        """Returns the names of topics that begin with ``prefix``."""
        return [name for name in self._topics if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        """Deletes a topic; offsets go on behind it, so that its positions never point into a later one of its name."""
        topic = self._topics.pop(name, None)
        if topic is not None:
            self._next_offset = max(self._next_offset, topic.end)
            self.wake(name)

    def append(self, messages: Iterable[Message]) -> None:
        """Adds messages to logs and listeners and wakes whoever waits for them."""
        woken: set[str] = set()
        for message in messages:
            name = message.topic
            topic = self.topic(name)
            listeners = self._listeners.get(name)
            if listeners:
                for listener in listeners:
                    listener.push(message)
            if not listeners or topic.is_wanted():
                topic.append(message)
            woken.add(name)
        for name in woken:
            self.wake(name)

    def full_topic(self, names: Iterable[str]) -> str | None:
        """Returns a topic that must not grow now."""
        return next((name for name in names if self._is_full(name) and not self._has_shrunk(name)), None)

    def relieve(self, name: str) -> None:
        """Lets publishers look again whether a full topic has room, after a reader moved on."""
        if self._is_full(name):
            self.wake(name)

    def _is_full(self, name: str) -> bool:
        topic = self._topics.get(name)
        return topic is not None and topic.size_bytes > self._limit_bytes

    def _has_shrunk(self, name: str) -> bool:
        # By a quarter at once: dropping is linear in what stays.
        self._topics[name].shrink(self._limit_bytes * 3 // 4)
        return not self._is_full(name)

    def listen(self, name: str, listener: Listener) -> None:
        """Adds a listener."""
        self._listeners.setdefault(name, []).append(listener)

    def forget(self, name: str, listener: Listener) -> None:
        """Removes a listener."""
        self._listeners[name].remove(listener)

    def next_serial(self) -> int:
        """Returns a fresh number for a delivery."""
        self._serial += 1
        return self._serial

    def wake(self, name: str) -> None:
        """Lets everyone who waits for this topic look again."""
        for waiter in self._waiters.pop(name, ()):
            _resolve(waiter)

    def wake_all(self) -> None:
        """Lets everyone look again."""
        for name in list(self._waiters):
            self.wake(name)

    async def wait(self, names: Sequence[str], timeout_s: float | None) -> None:
        """Returns when one of the topics changed or the time is up. Takes nothing, so cancelling loses nothing."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        for name in names:
            self._waiters.setdefault(name, set()).add(waiter)
        timer = loop.call_later(timeout_s, _resolve, waiter) if timeout_s is not None else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            for name in names:
                self._discard(name, waiter)

    def _discard(self, name: str, waiter: "asyncio.Future[None]") -> None:
        waiters = self._waiters.get(name)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[name]


_servers: "WeakValueDictionary[str, MemoryServer]" = WeakValueDictionary()


def server_named(name: str) -> MemoryServer:
    """Returns the server that all ``memory://<name>`` of this process share; a nameless one is nobody else's."""
    if not name:
        return MemoryServer()
    server = _servers.get(name)
    if server is None:
        server = _servers[name] = MemoryServer()
    return server


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
