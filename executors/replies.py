"""Who waits for which reply: one reader a topic, however many wait.

Brokers deliver at least once, services answer late and several ants may share a topic. So a reply counts only for
whoever waits for its correlation id, once; all others are counted and dropped.
"""

import asyncio
from collections import OrderedDict
from typing import Final

import msgspec
import structlog
from prometheus_client import Counter

from executors.errors import ExecutorError, ExecutorLostError
from executors.exchange import Exchange, Replies
from executors.verdict import Verdict

log = structlog.get_logger(__name__)

#: Correlation ids that are remembered after their end, to tell what is late from what was never ours.
_PAST_KEPT: Final = 10_000
_ignored = Counter("formicary_replies_ignored", "Replies to MESSAGING tasks that nobody waited for.", ["reason"])


class Reply(Verdict, frozen=True, kw_only=True):
    """The end of a task, as the service that did it says."""

    correlation_id: str


class _Address(msgspec.Struct):
    """The part of a reply that says whose it is."""

    correlation_id: str


_reply_decoder = msgspec.json.Decoder(Reply)
_address_decoder = msgspec.json.Decoder(_Address)


class _Reader:
    """One topic that is listened to."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[Reply]] = {}
        #: Done when the topic is listened to.
        self.opening: asyncio.Task[None] | None = None
        self.reading: asyncio.Task[None] | None = None


class ReplyDesk:
    """All replies that attempts of one executor wait for.

    Args:
        kept_topic: listened to until the end, once it was asked for; others only while somebody waits.
    """

    def __init__(self, exchange: Exchange, kept_topic: str) -> None:
        self._exchange = exchange
        self._kept_topic = kept_topic
        self._readers: dict[str, _Reader] = {}
        self._past: OrderedDict[str, None] = OrderedDict()

    async def expect(self, topic: str, correlation_id: str) -> asyncio.Future[Reply]:
        """Returns what becomes the reply; it is listened to when this returns, so that the request may be sent.

        The future fails with an ``ExecutorLostError`` where the reply cannot be read.

        Raises:
            StartFailedError: the broker does not let the topic be read.
        """
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = _Reader()
            reader.opening = asyncio.create_task(self._open(topic, reader))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        reader.waiting[correlation_id] = future
        assert reader.opening is not None
        await asyncio.shield(reader.opening)
        return future

    def forget(self, topic: str, correlation_id: str) -> None:
        """Waits for a reply no more: what comes is dropped. Stops listening where nobody waits."""
        reader = self._readers.get(topic)
        if reader is None:
            return
        future = reader.waiting.pop(correlation_id, None)
        if future is not None and future.done() and not future.cancelled():
            future.exception()  # whoever would have looked at it was stopped meanwhile
        self._past[correlation_id] = None
        if len(self._past) > _PAST_KEPT:
            self._past.popitem(last=False)
        if not reader.waiting and topic != self._kept_topic:
            self._close(topic, reader)

    async def close(self) -> None:
        """Stops listening. Safe twice."""
        ending = [task for reader in self._readers.values() for task in (reader.opening, reader.reading) if task]
        for topic, reader in list(self._readers.items()):
            self._close(topic, reader)
        if ending:
            await asyncio.wait(ending)

    def _close(self, topic: str, reader: _Reader) -> None:
        del self._readers[topic]
        for task in (reader.opening, reader.reading):
            if task is not None:
                task.cancel()

    async def _open(self, topic: str, reader: _Reader) -> None:
        try:
            replies = await self._exchange.listen(topic)
        except ExecutorError:
            self._readers.pop(topic, None)
            raise
        reader.reading = asyncio.create_task(self._read(topic, reader, replies))

    async def _read(self, topic: str, reader: _Reader, replies: Replies) -> None:
        try:
            while True:
                for body in await replies.receive():
                    self._take(reader, body)
        except ExecutorError as exc:
            log.warning("replies_lost", topic=topic, error=str(exc))
            self._readers.pop(topic, None)
            for future in reader.waiting.values():
                if not future.done():
                    future.set_exception(ExecutorLostError(f"replies on {topic} cannot be read: {exc}"))

    def _take(self, reader: _Reader, body: bytes) -> None:
        try:
            correlation_id = _address_decoder.decode(body).correlation_id
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            log.warning("reply_unreadable", reason=str(exc)[:200])
            _ignored.labels("unreadable").inc()
            return
        future = reader.waiting.get(correlation_id)
        if future is None or future.done():
            _ignored.labels("late" if future or correlation_id in self._past else "unknown").inc()
            return
        try:
            future.set_result(_reply_decoder.decode(body))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            words = f"the reply cannot be read: {exc}; see docs/executors/messaging.md"
            future.set_exception(ExecutorLostError(words))
