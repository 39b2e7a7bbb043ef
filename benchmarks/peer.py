"""``python -m benchmarks.peer URL``: the far side of WEBSOCKET (``ws://``) or MESSAGING (a broker's URL) tasks.

It says that each task is COMPLETED, and does nothing else. It is a process of its own, as such workers are.
"""

import sys
from typing import Final

import aiohttp
import msgspec
import uvloop

from brokers.base import Message
from brokers.registry import make_broker

#: The worker's method, and the service's topic.
WORK: Final = "bench-work"
SLOTS: Final = 1000


async def main(url: str) -> None:
    """Serves until killed."""
    await (_worker(url) if url.startswith("ws://") else _service(url))


async def _worker(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_json({"type": "register", "methods": [WORK], "slots": SLOTS})
        await socket.receive()
        print("ready", flush=True)
        async for frame in socket:
            task = msgspec.json.decode(frame.data)
            if task["type"] == "task":
                await socket.send_str(f'{{"type":"result","task":"{task["task"]}","status":"COMPLETED"}}')


async def _service(url: str) -> None:
    broker = make_broker(url)
    await broker.open()
    subscription = await broker.subscribe([WORK], "bench-service", "peer")
    print("ready", flush=True)
    while True:
        deliveries = await subscription.receive(1000, 60.0)
        await broker.publish([_reply(msgspec.json.decode(delivery.message.body)) for delivery in deliveries])
        await subscription.ack(deliveries)


def _reply(request: dict[str, str]) -> Message:
    body = {"correlation_id": request["correlation_id"], "status": "COMPLETED"}
    return Message(request["reply_to"], "", msgspec.json.encode(body))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
