"""Removes what nobody looks after any more: the containers and networks of attempts whose ant is gone.

The ant's own warden ends them at once. This is for what it cannot see: an engine that was away at that moment, a
machine on which ant and warden died together. By their labels, containers outlive the time limit of their task by a
margin only, whoever made them: any ant on the engine removes them then.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import structlog

from executors.docker.engine import Engine
from executors.docker.errors import EngineError, EngineRefusedError
from executors.docker.manifest import LIMIT_LABEL

log = structlog.get_logger(__name__)

Json = Any  # a JSON value
Dismiss = Callable[[], Awaitable[None]]

#: From one sweep to the next, in seconds.
SWEEP_EVERY_S = 300.0
#: How long a close waits for what is being removed, in seconds.
_CLOSE_LIMIT_S = 10.0
#: How soon what could not be removed is tried again, in seconds.
_RETRY_S = 2.0


class Reaper:
    """Sweeps one engine for as long as an ant uses it, ``every_s`` seconds."""

    def __init__(self, engine: Engine, *, every_s: float = SWEEP_EVERY_S) -> None:
        self._engine = engine
        self._every_s = every_s
        self._sweeping: asyncio.Task[None] | None = None
        self._owed: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begins to sweep; safe twice."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stops, after what is being removed; the rest is for another ant's sweep. Safe twice and before ``start``."""
        if self._owed:
            await asyncio.wait(set(self._owed.values()), timeout=_CLOSE_LIMIT_S)
        tasks = [*self._owed.values(), *([self._sweeping] if self._sweeping else [])]
        self._sweeping = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def owe(self, containers: list[str], network: str | None, dismiss: Dismiss | None) -> None:
        """Removes these in the background, now or as soon as the engine is there again; then calls ``dismiss``."""
        key = f"{network} {' '.join(containers)}"
        self._owed[key] = asyncio.create_task(self._pay(key, containers, network, dismiss))

    async def _pay(self, key: str, containers: list[str], network: str | None, dismiss: Dismiss | None) -> None:
        try:
            while True:
                with contextlib.suppress(EngineError):
                    await remove_all(self._engine, containers, network)
                    if dismiss is not None:
                        await dismiss()
                    return
                await asyncio.sleep(_RETRY_S)
        finally:
            self._owed.pop(key, None)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except EngineError as exc:
                log.debug("containers_not_swept", reason=str(exc))
            except Exception as exc:  # noqa: BLE001 - what makes no sense once must not end it for the ant's life
                log.error("container_sweep_stumbled", error=repr(exc))
            await asyncio.sleep(self._every_s)

    async def sweep(self) -> list[str]:
        """Removes what has outlived its limit; returns the ids of the containers."""
        containers, now_s = await self._engine.labelled(LIMIT_LABEL)
        expired = [str(each["Id"]) for each in containers if _has_expired(each["Labels"], each["Created"], now_s)]
        for container in expired:
            await self._engine.remove(container)
        for network in await self._engine.labelled_networks(LIMIT_LABEL):
            created_s = datetime.fromisoformat(network["Created"]).timestamp()
            if _has_expired(network["Labels"], created_s, now_s):
                with contextlib.suppress(EngineRefusedError):  # somebody put a container of their own into it
                    await self._engine.remove_network(network["Id"])
        return expired


def _has_expired(labels: Mapping[str, str], created_s: float, now_s: float) -> bool:
    limit = labels.get(LIMIT_LABEL, "")
    return limit.isdigit() and now_s - created_s > int(limit)


async def remove_all(engine: Engine, containers: list[str], network: str | None) -> None:
    """Kills and removes containers, then their network.

    Raises:
        EngineError: the engine did not do all of it.
    """
    results = await asyncio.gather(*(engine.remove(each) for each in containers), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    if network is not None:
        await engine.remove_network(network)
