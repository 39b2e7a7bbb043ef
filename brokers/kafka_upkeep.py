"""Letting go of what nobody will read any more: Kafka itself knows ages only, and those for a whole topic.

Whoever consumes a topic sees to it in the background, every few minutes, with the grants that it has anyway. A group
lets go of what all groups of the topic have acknowledged; a listener of what it had heard ten minutes before, which
gives the others that time. Logs are left to those who read them by position.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog
from aiokafka import errors as kafka

from brokers.calls import end_task
from brokers.errors import BrokerError, words_of
from brokers.kafka_commits import let_go
from brokers.kafka_link import Link

log = structlog.get_logger(__name__)

#: Time between two deletions, in seconds; a constant of this module, so that tests can shorten it.
EVERY_S = 300.0
#: What was broadcast is kept so long, in seconds.
KEPT_S = 600.0
#: Fewer records are not worth a request.
WORTH_COUNT = 100


class Place(NamedTuple):
    """How far a log was read."""

    log_id: str
    offset: int


class Upkeep:
    """Deletes now and then what lies ``kept_s`` behind the places that ``read`` returns by topic."""

    def __init__(self, link: Link, read: Callable[[], Awaitable[Mapping[str, Place]]], kept_s: float) -> None:
        self._link = link
        self._read = read
        self._kept_s = kept_s
        self._marks: deque[tuple[float, Mapping[str, Place]]] = deque()
        #: Up to where the records are gone.
        self._gone: dict[str, Place] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Ends, also before ``start``."""
        await end_task(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.run_once()
            except (BrokerError, kafka.KafkaError, OSError) as exc:
                log.info("kafka_records_kept", reason=words_of(exc))

    async def run_once(self) -> None:
        """Notes how far was read, and deletes what is due."""
        now = asyncio.get_running_loop().time()
        self._marks.append((now, await self._read()))
        due: Mapping[str, Place] = {}
        while self._marks and now - self._marks[0][0] >= self._kept_s:
            due = self._marks.popleft()[1]
        for topic, place in due.items():
            gone = self._gone.get(topic)
            if place.offset - (gone.offset if gone and gone.log_id == place.log_id else 0) >= WORTH_COUNT:
                before = await let_go(self._link, topic, place.log_id, place.offset)
                self._gone[topic] = Place(place.log_id, before)
