"""What a backend costs beside its bare client: the messages of a real run, sent and read once more by each."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.bare import CLIENTS, Client, Ours
from brokers.base import Message
from formicary.bus import Bus

Batches = list[list[Message]]
#: Runs of each, in turn; the best counts.
_ROUNDS = 3


@contextmanager
def recorded() -> Iterator[Batches]:
    """Notes every batch that a bus of this process publishes."""
    batches: Batches = []
    publish = Bus.publish_messages

    async def noting(self: Bus, messages: Sequence[Message]) -> None:
        if messages:
            batches.append(list(messages))
        await publish(self, messages)

    Bus.publish_messages = noting  # type: ignore[method-assign]
    try:
        yield batches
    finally:
        Bus.publish_messages = publish  # type: ignore[method-assign]


async def replayed(name: str, url: str, batches: Batches) -> tuple[float, float]:
    """Returns the seconds that the bare client and our backend take for the same messages."""
    bare_s, ours_s = [], []
    for number in range(_ROUNDS):
        bare_s.append(await _timed(CLIENTS[name](url), _renamed(batches, f"bare{number}")))
        ours_s.append(await _timed(Ours(url), _renamed(batches, f"ours{number}")))
    return min(bare_s), min(ours_s)


def _renamed(batches: Batches, prefix: str) -> Batches:
    """Returns the batches on topics that nobody else uses."""
    return [[message._replace(topic=f"{prefix}.{message.topic}") for message in batch] for batch in batches]


async def _timed(client: Client, batches: Batches) -> float:
    """Returns how long it takes until all is sent and read; connections and topics are made before."""
    counts = Counter(message.topic for batch in batches for message in batch)
    await client.open(list(counts))
    try:
        await client.publish([Message(topic, "first", b"first") for topic in counts])
        for topic in counts:
            await client.read(topic, 1)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for topic, count in counts.items():
                group.create_task(client.read(topic, count))
            for batch in batches:
                await client.publish(batch)
        return time.perf_counter() - start
    finally:
        await client.close()
