"""Long-lived work: every task that outlives a call belongs to a ``Service``."""

import asyncio
from abc import ABC, abstractmethod

import structlog

log = structlog.get_logger(__name__)


class Service(ABC):
    """Starts, says when it serves, stops. ``stop`` is safe twice and before ``start``.

    Subclasses implement ``run``, which sets ``started`` once it serves and returns or raises to end. An exception of
    ``run`` is kept and raised by ``wait``, so that the owner of the process can end it.
    """

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run(self) -> None:
        """Does the work until cancelled."""

    async def start(self) -> None:
        """Starts ``run`` and returns when it serves.

        Raises:
            Exception: whatever ``run`` raised before it served.
        """
        self._task = asyncio.create_task(self.run(), name=type(self).__name__)
        ready = asyncio.create_task(self.started.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()

    async def wait(self) -> None:
        """Returns when ``run`` ended; raises what it raised."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Cancels ``run`` and waits for its end; an error of its end is logged, not raised."""
        task = self._task
        if task is None:
            return
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("service_ended_with_error", service=type(self).__name__, error=repr(error))
