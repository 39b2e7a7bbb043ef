"""A service that submits a job over the message broker and waits for its end, with the broker's own client alone.

    python service.py URL JOB_TYPE [NAME=VALUE ...]

URL is the broker's, as the colony has it: redis://…, kafka://… or pulsar://…. Exits with 0 when the job is COMPLETED,
with 1 when it ended otherwise or was refused. What the messages mean is in docs/events.md.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any, Protocol

COMMANDS = "formicary.commands"
LIFECYCLE = "formicary.lifecycle"
REPLIES = "formicary.replies.bus-service"
ENDS = {"COMPLETED", "FAILED", "CANCELLED"}
#: A command is sent again, under the same key, when no answer came for so long, in seconds.
ANSWER_S = 10.0


class Bus(Protocol):
    """What the service needs of a broker; see ``over_redis.py``, ``over_kafka.py`` and ``over_pulsar.py``."""

    async def send(self, topic: str, key: str, body: bytes) -> None:
        """Returns when the broker has the message."""

    async def listen(self, topic: str) -> AsyncIterator[bytes]:
        """Returns an iterator over all messages from now on."""

    async def close(self) -> None:
        """Disconnects."""


async def connect(url: str) -> Bus:
    """Returns a connection through the client that the URL names."""
    scheme = url.partition("://")[0]
    if scheme == "redis":
        from over_redis import RedisBus

        return RedisBus(url)
    if scheme == "kafka":
        from over_kafka import KafkaBus

        return await KafkaBus.open(url)
    if scheme == "pulsar":
        from over_pulsar import PulsarBus

        return PulsarBus(url)
    raise SystemExit(f"{url.rpartition('@')[2]}: no redis://, kafka:// or pulsar:// URL")


async def submit_and_wait(bus: Bus, job_type: str, params: dict[str, Any]) -> str:
    """Submits a job and returns the state it ended in, or REFUSED."""
    replies, changes = await bus.listen(REPLIES), await bus.listen(LIFECYCLE)  # before the command: nothing is missed
    answer = await submit(bus, replies, job_type, params)
    if answer["type"] == "CommandRefused":
        print(f"refused: {answer['code']}: {answer['detail']}")
        return "REFUSED"
    print(f"job {answer['job_id']}")
    return await end_of(answer["job_id"], changes)


async def submit(bus: Bus, replies: AsyncIterator[bytes], job_type: str, params: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer to a SubmitJob; sends it until there is one, which makes one job however often."""
    key = str(uuid.uuid4())  # of a real service: the number of an order, say
    command = {
        "type": "SubmitJob",
        "job_type": job_type,
        "params": params,
        "idempotency_key": key,
        "reply_to": REPLIES,
        "correlation_id": key,
    }
    answered = asyncio.ensure_future(answer_to(key, replies))
    while not answered.done():
        await bus.send(COMMANDS, key, json.dumps(command).encode())
        await asyncio.wait({answered}, timeout=ANSWER_S)
    return answered.result()


async def answer_to(correlation_id: str, replies: AsyncIterator[bytes]) -> dict[str, Any]:
    """Returns the first answer to this command; others share the topic."""
    async for body in replies:
        answer: dict[str, Any] = json.loads(body)
        if answer["correlation_id"] == correlation_id:
            return answer
    raise ConnectionError("the broker was lost")


async def end_of(job_id: str, changes: AsyncIterator[bytes]) -> str:
    """Returns the state in which a job ends; prints those before. A change may come twice: its sequence tells."""
    seen = 0
    async for body in changes:
        for line in body.splitlines():
            change = json.loads(line)
            if change["type"] != "JobStateChanged" or change["job_id"] != job_id or change["sequence"] <= seen:
                continue
            seen, state = change["sequence"], change["state"]
            print(f"{change['at']} {state}", change["error_message"] or "")
            if state in ENDS:
                return str(state)
    raise ConnectionError("the broker was lost")


def value_of(text: str) -> Any:
    """Returns JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def main(url: str, job_type: str, *texts: str) -> int:
    """Runs the service once; returns its exit code."""
    params = {name: value_of(value) for name, _, value in (text.partition("=") for text in texts)}
    bus = await connect(url)
    try:
        return 0 if await submit_and_wait(bus, job_type, params) == "COMPLETED" else 1
    finally:
        await bus.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
