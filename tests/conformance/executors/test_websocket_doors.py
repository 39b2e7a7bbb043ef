"""Who may be a remote worker, and what the others are told."""

import aiohttp
import pytest

from executors.errors import ExecutorError
from executors.options import ExecutorOptions
from executors.websocket import WebsocketExecutor
from tests.conformance.executors.remote_workers import Crew, OpenExecutor


async def test_a_page_of_an_origin_that_is_not_listed_is_refused(open_executor: OpenExecutor, crew: Crew) -> None:
    executor = await open_executor(workers_origins=("http://good.example",))

    for origin in ("http://evil.example", "http://good.example.evil.example", "null"):
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await crew.dial(executor, headers={"Origin": origin})

    peer = await crew.dial(executor, headers={"Origin": "http://good.example"})
    await peer.say(type="register", methods=["work"])
    assert (await peer.hear())["type"] == "registered"


async def test_only_who_knows_the_token_may_register(open_executor: OpenExecutor, crew: Crew) -> None:
    executor = await open_executor(workers_token="open sésame")

    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await crew.dial(executor, headers={"Authorization": "Bearer wrong"})
    for wrong in ({}, {"token": None}, {"token": "wrong"}):
        peer = await crew.dial(executor)
        await peer.say(type="register", methods=["work"], **wrong)
        assert (await peer.hear())["code"] == "unauthorized"
        assert await peer.closed() == 4401
    assert (await crew.peer(executor, token="open sésame")).socket.closed is False


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"ping"}',
        '{"type":"register","methods":[]}',
        '{"type":"register","methods":["no spaces"]}',
        '{"type":"register","methods":["work"],"slots":0}',
        '{"type":"register","methods":["work"],"protocol":2}',
        '{"type":"register","methods":["work"],"name":"a\\nb"}',
        '{"type":"register","methods":["work"],"name":""}',
        '{"type":"register","methods":["work\\n"]}',
        "hello",
    ],
)
async def test_a_connection_that_does_not_register_is_told_why_and_closed(
    executor: WebsocketExecutor, crew: Crew, first: str
) -> None:
    peer = await crew.dial(executor)

    await peer.socket.send_str(first)

    assert (await peer.hear())["code"] == "bad_message"
    assert await peer.closed() == 4400


async def test_an_address_that_is_taken_or_missing_says_so(executor: WebsocketExecutor) -> None:
    second = WebsocketExecutor(ExecutorOptions(workers_listen=("127.0.0.1", executor.port)))

    with pytest.raises(ExecutorError, match=r"cannot listen for workers on 127\.0\.0\.1:"):
        await second.check()
    with pytest.raises(ExecutorError, match="set FORMICARY_WORKERS_LISTEN"):
        await WebsocketExecutor().check()
