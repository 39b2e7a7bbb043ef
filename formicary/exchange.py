"""The broker for executors that talk to other services: messages of their own, on topics that are not the colony's."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from brokers.base import Broker, Edge, Message, Position
from brokers.errors import BrokerError, BrokerUnavailableError, MessageTooLargeError, PositionTrimmedError
from executors.errors import ExecutorLostError, SpecRefusedError, StartFailedError
from formicary.bus import FIRST_RETRY_S, LAST_RETRY_S, Bus
from formicary.clock import Clock
from formicary.outage import Outage

log = structlog.get_logger(__name__)

_READ_COUNT: Final = 1000
_READ_S: Final = 30.0
#: So many messages of a topic of its own an ant lets gather before it trims them.
_TRIM_COUNT: Final = 1000
#: What the deletion of that topic may take at the end, in seconds.
_CLOSE_S: Final = 2.0


class BrokerExchange:
    """What ``executors.exchange.Exchange`` asks for, over the process's own broker.

    Args:
        own_topic: the one that nobody else listens to: what was read is let go of there.
    """

    def __init__(self, broker: Broker, bus: Bus, clock: Clock, own_topic: str | None) -> None:
        self._broker = broker
        self._bus = bus
        self._clock = clock
        self._own_topic = own_topic
        self._has_own_topic = False
        self._outage = Outage("replies_wait_for_broker", clock.boottime)

    async def send(self, topic: str, key: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns when the broker has the message, perhaps more than once; waits for a broker that is lost."""
        try:
            await self._bus.publish_messages([Message(topic, key, body, dict(headers))])
        except MessageTooLargeError as exc:
            raise SpecRefusedError(str(exc)) from exc
        except BrokerError as exc:
            raise StartFailedError(str(exc)) from exc

    async def listen(self, topic: str) -> "BrokerReplies":
        """Returns what comes to a topic from now on; waits for a broker that is lost."""
        self._has_own_topic = self._has_own_topic or topic == self._own_topic
        try:
            return BrokerReplies(self, topic, await self._bus.end(topic))
        except BrokerError as exc:
            raise StartFailedError(str(exc)) from exc

    async def close(self) -> None:
        """Deletes the own topic, if it was used: the next ant may have another id. Safe twice."""
        if self._own_topic is None or not self._has_own_topic:
            return
        self._has_own_topic = False
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._bus.delete_topic(self._own_topic)
        except (BrokerError, TimeoutError) as exc:
            log.warning("reply_topic_left", topic=self._own_topic, reason=str(exc) or f"not in {_CLOSE_S:g} s")

    async def read(self, topic: str, after: Position | Edge) -> tuple[Position | Edge, list[bytes]]:
        """Returns the next messages of a topic, and the position behind them; waits for a broker that is lost."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                entries = await self._broker.read(topic, after, _READ_COUNT, _READ_S)
            except BrokerUnavailableError as exc:
                self._outage.note(exc.reason)
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_RETRY_S)
                continue
            except PositionTrimmedError:
                log.warning("replies_trimmed", topic=topic)
                after = await self._bus.end(topic)
                continue
            self._outage.over()
            if entries:
                return entries[-1].position, [entry.message.body for entry in entries]

    async def let_go(self, topic: str, before: Position | Edge) -> None:
        """Trims a topic of this ant's own."""
        if topic == self._own_topic and not isinstance(before, Edge):
            try:
                await self._bus.trim(topic, before)
            except BrokerUnavailableError as exc:
                log.warning("replies_not_trimmed", topic=topic, reason=exc.reason)


class BrokerReplies:
    """One topic, read by position: a broker that is away for a while loses nothing."""

    def __init__(self, exchange: BrokerExchange, topic: str, after: Position | Edge) -> None:
        self._exchange = exchange
        self._topic = topic
        self._after = after
        self._count = 0

    async def receive(self) -> list[bytes]:
        """Returns the next messages, as soon as there are some."""
        try:
            if self._count >= _TRIM_COUNT:
                self._count = 0
                await self._exchange.let_go(self._topic, self._after)
            self._after, bodies = await self._exchange.read(self._topic, self._after)
        except BrokerError as exc:
            raise ExecutorLostError(str(exc)) from exc
        self._count += len(bodies)
        return bodies
