"""Running a server in the foreground: says when it serves, drains on the first signal, stops at once on the second."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Exit code of a process that a second signal stopped before it had drained.
_STOPPED_AT_ONCE = 130


class Server(Protocol):
    """What a composition root yields for a server."""

    async def wait(self) -> None:
        """Returns when a part of the server ended by itself; raises what it raised."""
        ...


class Running:
    """A server made of a way to wait for its end."""

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        self._wait = wait

    async def wait(self) -> None:
        """Returns when a part of the server ended by itself; raises what it raised."""
        await self._wait()


async def first_end(*parts: Coroutine[Any, Any, None]) -> None:
    """Returns when the first of ``parts`` ended; raises what it raised. The others are cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the fastest loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def serve(server: AbstractAsyncContextManager[Server], ready_file: str | None) -> int:
    """Runs ``server`` until SIGTERM or SIGINT; returns the exit code.

    The exit of the context drains. A server that is still starting, waiting for its database perhaps, has nothing to
    drain: its start is given up. ``ready_file`` appears when the server serves, and goes when it stops.
    """
    stop, is_serving = _stop_on_signals(), asyncio.Event()
    serving = asyncio.ensure_future(_serve(server, stop, is_serving, ready_file))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not is_serving.is_set():
            serving.cancel()
        await asyncio.wait({serving})
    finally:
        stopped.cancel()
        serving.cancel()
    if not serving.cancelled():
        serving.result()
    log.info("stopped")
    return 0


async def _serve(
    server: AbstractAsyncContextManager[Server], stop: asyncio.Event, is_serving: asyncio.Event, ready_file: str | None
) -> None:
    async with server as running:
        is_serving.set()
        _say_ready(ready_file)
        ended = asyncio.ensure_future(running.wait())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            log.info("draining")
        finally:
            ended.cancel()
            stopped.cancel()
            _forget_ready(ready_file)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(_STOPPED_AT_ONCE)
        log.info("signal_received", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def _say_ready(ready_file: str | None) -> None:
    log.info("ready", pid=os.getpid())
    if ready_file is not None:
        Path(ready_file).write_text(f"{os.getpid()}\n")


def _forget_ready(ready_file: str | None) -> None:
    if ready_file is not None:
        with suppress(OSError):
            Path(ready_file).unlink()
