"""What the Redis backend takes for a lost connection."""

import asyncio

import pytest
import uvloop

from brokers.errors import BrokerUnavailableError
from brokers.redis import Link
from brokers.urls import parse_url


def link() -> Link:
    return Link(parse_url("redis://127.0.0.1:1", 6379, ()))


async def write_to_a_lost_connection() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.transport.abort()
        await asyncio.sleep(0)
        with link().errors():
            writer.write(b"PING\r\n")


def test_a_write_by_uvloop_to_a_connection_that_was_just_lost_finds_the_server_away() -> None:
    with pytest.raises(BrokerUnavailableError, match="closed"):
        uvloop.run(write_to_a_lost_connection())


def test_a_defect_is_no_lost_connection() -> None:
    with pytest.raises(RuntimeError, match="a defect"), link().errors():
        raise RuntimeError("a defect")
