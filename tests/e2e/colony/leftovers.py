"""What lies in a broker when all is over: nothing that somebody should still read, and nothing that was given up."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from brokers.base import DEAD_SUFFIX, START, Broker, Position
from brokers.registry import make_broker
from formicary.events import topics

#: Between the last job's end and the last acknowledgement, in seconds; only a failing run waits it out.
PATIENCE_S = 30.0
READ_S = 0.5
POSITIONS = "SELECT shard, results_position, launch_position FROM leases WHERE shard IS NOT NULL"
GROUPS = ((topics.COMMANDS, topics.QUEENS), (topics.LOGS, topics.LOG_WRITERS))


def leftovers(broker_url: str, database: Any) -> list[str]:
    """Returns what is left once it stops becoming less; ``database()`` gives the rows of ``POSITIONS``."""
    return asyncio.run(_settled(broker_url, database))


async def _settled(broker_url: str, database: Any) -> list[str]:
    broker = make_broker(broker_url)
    await broker.open()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = await look(broker, await asyncio.to_thread(database))
            if not found or time.monotonic() > deadline:
                return found
    finally:
        await broker.close()


async def look(broker: Broker, rows: Sequence[Any]) -> list[str]:
    """Returns what is left now; ``rows`` are those of ``POSITIONS``."""
    found = [
        f"{depth} messages of {topic} are not acknowledged"
        for topic, group in GROUPS
        if (depth := await broker.depth(topic, group))
    ]
    logs = [(topics.results(row["shard"]), row["results_position"]) for row in rows]
    logs += [(topics.launch(row["shard"]), row["launch_position"]) for row in rows]
    found += await asyncio.gather(*(_unread(broker, topic, position) for topic, position in logs))
    dead = [topic for topic in await broker.topics("") if topic.endswith(DEAD_SUFFIX)]
    found += await asyncio.gather(*(_dead(broker, topic) for topic in dead))
    return [line for line in found if line]


async def _unread(broker: Broker, topic: str, position: bytes | None) -> str:
    after = START if position is None else Position(position)
    entries = await broker.read(topic, after, 100, READ_S)
    return f"{len(entries)} messages of {topic} are not read" if entries else ""


async def _dead(broker: Broker, topic: str) -> str:
    entries = await broker.read(topic, START, 10, READ_S)
    return ", ".join(f"in {topic}: {entry.message.headers}" for entry in entries)
