"""Commands in a container, over the exec subresource: bytes in, bytes out, exit code."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from executors.kubernetes.cluster import LOST, Cluster, unreachable
from executors.kubernetes.errors import ApiUnreachableError

_STDIN, _STDOUT, _STDERR, _ERROR = range(4)
#: Most bytes of one message in: beyond it proxies between complain.
CHUNK_BYTES: Final = 256 * 1024
#: A container that sends nothing for so long is taken for gone, in seconds.
_SILENCE_S: Final = 120.0
#: How much is kept of what a command complained of, its end.
STDERR_BYTES: Final = 4000


class ExecSession:
    """One running command. ``exit_code`` and ``stderr`` are known once ``output`` has ended."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.exit_code: int | None = None
        self.stderr = b""

    async def send(self, data: bytes) -> None:
        """Gives the command input, at most ``CHUNK_BYTES``.

        Raises:
            ApiUnreachableError: the connection broke.
        """
        try:
            await self._socket.send_bytes(bytes([_STDIN]) + data)
        except LOST as exc:
            raise unreachable(exc) from exc

    async def output(self) -> AsyncIterator[bytes]:
        """Yields standard output until the command has ended.

        Raises:
            ApiUnreachableError: the connection broke before the exit code came.
        """
        while self.exit_code is None:
            message = await self._receive()
            channel, data = message[0], message[1:]
            if channel == _STDOUT and data:
                yield data
            elif channel == _STDERR:
                self.stderr = (self.stderr + data)[-STDERR_BYTES:]
            elif channel == _ERROR:
                self.exit_code = _exit_code(data)

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(_SILENCE_S):
                message = await self._socket.receive()
        except LOST as exc:
            raise unreachable(exc) from exc
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            raise ApiUnreachableError("the connection to a container broke before its command had ended")
        data: bytes = message.data
        return data


@asynccontextmanager
async def running(
    cluster: Cluster, pod: str, container: str, command: Sequence[str], *, has_input: bool = False
) -> AsyncIterator[ExecSession]:
    """Starts a command in a container; leaving the context ends the connection, not the command.

    Raises:
        ApiRefusedError: the container is not there, or exec is not allowed.
        ApiUnreachableError: the connection broke.
    """
    async with cluster.exec(pod, container, command, has_input=has_input) as socket:
        yield ExecSession(socket)


def _exit_code(data: bytes) -> int:
    """Returns the code of the status that ends a command.

    Raises:
        ApiUnreachableError: the node could not run it, which a busy one says too.
    """
    try:
        status = json.loads(data)
    except ValueError:
        status = {}
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    words = status.get("message") or data.decode(errors="replace")
    raise ApiUnreachableError(f"the node could not run a command in the container: {words}")
