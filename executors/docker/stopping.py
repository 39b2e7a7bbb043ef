"""How a container is asked to end, and made to."""

import asyncio
import contextlib
import math

from executors.docker.engine import Engine
from executors.docker.errors import EngineError

#: How long the asking itself may take, in seconds.
_ASK_LIMIT_S = 10.0
#: From one try to kill to the next, in seconds.
_RETRY_S = 1.0
#: TERM for all processes but the first, which gets its own: a shell's traps run only when its command has ended.
_ASK_ALL = ("sh", "-c", "kill -TERM -1")


class Stopper:
    """Ends one container: TERM to all its processes, then KILL when the shortest grace given is over.

    It may be asked before the container runs, and then waits for that: a start that is under way cannot be taken back.
    """

    def __init__(self, engine: Engine, container: str, *, has_shell: bool) -> None:
        self._engine = engine
        self._container = container
        self._has_shell = has_shell
        self._kill_at_s = math.inf
        self._is_sooner = asyncio.Event()
        self._has_started = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Says that the container runs."""
        self._has_started.set()

    def ask(self, grace_s: float) -> None:
        """Begins to end the container, or shortens the grace it has."""
        kill_at_s = asyncio.get_running_loop().time() + grace_s
        if kill_at_s < self._kill_at_s:
            self._kill_at_s = kill_at_s
            self._is_sooner.set()
        if self._work is None:
            self._work = asyncio.create_task(self._end())

    async def close(self) -> None:
        """Lets go; call it when the container has ended. Safe twice and before ``ask``."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})

    async def _end(self) -> None:
        await self._has_started.wait()
        asking = asyncio.create_task(self._ask_gently())
        try:
            await self._grace_over()
            while True:
                with contextlib.suppress(EngineError):
                    await self._engine.kill(self._container, "KILL")
                    return
                await asyncio.sleep(_RETRY_S)  # the engine is away; whoever waits for the end sees to that
        finally:
            asking.cancel()

    async def _ask_gently(self) -> None:
        if self._kill_at_s <= asyncio.get_running_loop().time():
            return
        with contextlib.suppress(EngineError):
            await self._engine.kill(self._container, "TERM")
            if self._has_shell:
                await self._engine.execute(self._container, _ASK_ALL, _ASK_LIMIT_S)

    async def _grace_over(self) -> None:
        while (left_s := self._kill_at_s - asyncio.get_running_loop().time()) > 0:
            self._is_sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._is_sooner.wait()
