"""Services beside a task: started before it, and waited for until they are ready."""

import asyncio
import time
from typing import Any

from executors.base import Sink, Stream
from executors.docker.address import is_local
from executors.docker.engine import OUTPUT_BYTES, Engine
from executors.docker.errors import EngineError, EngineLostError, EngineRefusedError
from executors.errors import ServiceError
from executors.excerpts import without_last_line
from executors.output import PIECE_BYTES
from executors.specs import ReadySpec, ServiceSpec

Json = Any  # a JSON value

#: From one look at a service to the next, in seconds: at first, and at most.
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 0.5
#: How long one look may take, in seconds.
_LOOK_LIMIT_S = 5.0
_CONNECT_LIMIT_S = 1.0
#: The exit codes of a command that the engine could not run.
_NOT_RUN = (126, 127)
#: Lines of a service's own log that are shown where it does not get ready.
_LOG_LINES = 30
#: Shows the sockets of a container, of which there may be many.
_SOCKETS = ("cat", "/proc/net/tcp", "/proc/net/tcp6")
_TABLE_BYTES = 1024 * 1024
_TABLE_HEADING = b"local_address"
#: There: the state of a socket that listens, and the addresses that nobody else reaches.
_LISTENS = "0A"
_LOOPBACK = ("0100007F", "7F000001", "00000000000000000000000001000000", "00000000000000000000000000000001")


class Service:
    """One started service."""

    def __init__(self, engine: Engine, container: str, network: str, spec: ServiceSpec) -> None:
        self._engine = engine
        self._container = container
        self._network = network
        self._spec = spec
        #: The last line of what the command last said that tells whether it is ready.
        self._said = ""

    async def start(self) -> None:
        """Starts its container.

        Raises:
            ServiceError: the engine would not.
        """
        try:
            await self._engine.start(self._container)
        except EngineRefusedError as exc:
            raise ServiceError(f"service {self._spec.name} did not start: {exc.reason}") from exc

    async def ready(self, sink: Sink) -> None:
        """Returns when it is ready.

        Raises:
            ServiceError: it has ended, or it took too long; its last lines are in the log.
        """
        ready = self._spec.ready or ReadySpec()
        began_s, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while not await self._is_ready(ready, sink):
            if time.monotonic() - began_s > ready.timeout_s:
                await self._show_log(sink)
                wanted = f"port {ready.port} to be open" if ready.port else f"{' '.join(ready.command)} to succeed"
                message = f"service {self._spec.name} was not ready within {ready.timeout_s:g} s: waited for {wanted}"
                message += f", which last said: {self._said}" if self._said else ""
                raise ServiceError(f"{message}; see its last lines in the log, or raise ready.timeout")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _MAX_PAUSE_S)

    async def _is_ready(self, ready: ReadySpec, sink: Sink) -> bool:
        facts = await self._engine.inspect(self._container)
        state = facts["State"]
        if not state["Running"]:
            await self._show_log(sink)
            why = (
                "was killed for want of memory"
                if state.get("OOMKilled")
                else f"ended with exit code {state['ExitCode']}"
            )
            raise ServiceError(f"service {self._spec.name} {why} before it was ready; see its last lines in the log")
        if ready.port is not None:
            return await self._is_open(facts, ready.port)
        return not ready.command or await self._succeeds(ready.command)

    async def _succeeds(self, command: tuple[str, ...]) -> bool:
        try:
            code, said = await self._engine.execute(self._container, command, _LOOK_LIMIT_S)
        except (EngineRefusedError, EngineLostError):
            return False  # it does not run yet, or any more, or hangs: the next look tells
        self._said = last_said(said)
        return code == 0

    async def _is_open(self, facts: Json, port: int) -> bool:
        """Tells whether something listens that others reach: asked from within, since the engine may be anywhere."""
        try:
            code, table = await self._engine.execute(self._container, _SOCKETS, _LOOK_LIMIT_S, _TABLE_BYTES)
        except (EngineRefusedError, EngineLostError):
            return False  # it does not run yet, or any more, or hangs: the next look tells
        if _TABLE_HEADING in table:
            return _listens(table, port)
        if code not in _NOT_RUN:
            return False
        if is_local(self._engine.url):
            return await self._answers(facts["NetworkSettings"]["Networks"][self._network]["IPAddress"], port)
        message = (
            f"service {self._spec.name}: ready.port cannot be looked at, since image {self._spec.image} has no cat"
        )
        raise ServiceError(f"{message} and the engine is on another machine; use ready.command")

    @staticmethod
    async def _answers(address: str, port: int) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def _show_log(self, sink: Sink) -> None:
        try:
            log = await self._engine.tail(self._container, _LOG_LINES)
        except EngineError as exc:
            log = str(exc).encode()
        for line in log.splitlines():
            text = f"[{self._spec.name}] ".encode() + line + b"\n"
            for at in range(0, len(text), PIECE_BYTES):
                await sink.write(Stream.SYSTEM, text[at : at + PIECE_BYTES])


def last_said(output: bytes) -> str:
    """Returns the last line of what a command said that has words."""
    text = output.decode(errors="replace")
    if len(output) == OUTPUT_BYTES:
        text = without_last_line(text)
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _listens(table: bytes, port: int) -> bool:
    """Tells whether the kernel's table has a socket that listens on a port, and not to its own machine only."""
    for row in table.decode(errors="replace").splitlines():
        words = row.split()
        if len(words) > 3 and words[3] == _LISTENS:
            address, _, number = words[1].rpartition(":")
            if number == f"{port:04X}" and address not in _LOOPBACK:
                return True
    return False
