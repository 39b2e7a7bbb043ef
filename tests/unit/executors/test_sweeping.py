"""The sweep for what nobody looks after any more goes on, whatever an engine answers."""

import asyncio
from typing import Any

from aiohttp import web

from executors.docker.engine import Engine
from executors.docker.manifest import LIMIT_LABEL
from executors.docker.reaper import Reaper

Json = Any  # a JSON value


async def test_an_answer_that_makes_no_sense_does_not_end_the_sweeping(unused_tcp_port: int) -> None:
    answers: list[Json] = [
        [{"Id": "senseless", "Created": 0, "Labels": None}],
        [{"Id": "expired", "Created": 0, "Labels": {LIMIT_LABEL: "60"}}],
    ]
    removed: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: web.Request) -> web.Response:
        if request.method == "DELETE":
            await removed.put(request.path.rpartition("/")[2])
            return web.Response(status=204)
        if request.path.endswith("/containers/json"):
            return web.json_response(answers.pop(0) if answers else [])
        return web.json_response({"ApiVersion": "1.47"} if request.path.endswith("/version") else [])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    engine = Engine(f"tcp://127.0.0.1:{unused_tcp_port}")
    reaper = Reaper(engine, every_s=0.01)

    reaper.start()
    async with asyncio.timeout(10):
        assert await removed.get() == "expired"

    await reaper.close()
    await engine.close()
    await runner.cleanup()
