"""The servers behind ``up``, ``queen`` and ``ant``: the parts of a process, and the API in front of them.

Order of a shutdown: the API stops taking, then the parts drain (see ``wiring``), then the home is given back.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.cli.orphans import RunLedger
from formicary.cli.serving import Running, first_end, serve
from formicary.clock import SystemClock
from formicary.home import HomeLock, prove_writable
from formicary.patience import Patience
from formicary.queen.api.server import ApiServer
from formicary.queen.manager.manager import Manager
from formicary.settings import Settings, split_listen


class Colony(Protocol):
    """What ``wiring`` yields."""

    @property
    def manager(self) -> Manager:
        """Returns the manager of the queen in this process."""
        ...

    async def wait(self) -> None:
        """Returns or raises when a part ended by itself."""
        ...


async def serve_up(loaded: Settings, options: AntOptions, ready_file: str | None) -> int:
    """Serves queen, ant and API, holding the home."""
    with HomeLock(loaded.home, "up") as lock:
        return await serve(_with_api(loaded, wiring.up(loaded, options), lock), ready_file)


async def serve_queen(loaded: Settings, queen_id: str | None, ready_file: str | None) -> int:
    """Serves a queen and its API; holds the home where the database is the embedded one."""
    if loaded.database_url is not None:
        return await serve(_with_api(loaded, wiring.queen(loaded, queen_id), None), ready_file)
    with HomeLock(loaded.home, "queen") as lock:
        return await serve(_with_api(loaded, wiring.queen(loaded, queen_id), lock), ready_file)


async def serve_ant(loaded: Settings, options: AntOptions, ready_file: str | None) -> int:
    """Serves an ant; several may use one home."""
    prove_writable(loaded.home)
    return await serve(wiring.ant(loaded, options), ready_file)


@asynccontextmanager
async def _with_api(
    loaded: Settings, parts: AbstractAsyncContextManager[Colony], lock: HomeLock | None
) -> AsyncIterator[Running]:
    listen = split_listen(loaded.listen)
    ApiServer.check_listen(listen)
    ApiServer.check_free(listen)
    async with parts as colony:
        if lock is not None:
            await _cancel_orphans(lock, colony.manager)
        server = ApiServer(colony.manager, listen)
        try:
            await server.start()
            if lock is not None:
                lock.introduce(server.address)
            yield Running(lambda: first_end(colony.wait(), server.wait()))
        finally:
            await server.stop()
            await colony.manager.close()


async def _cancel_orphans(lock: HomeLock, manager: Manager) -> None:
    ledger = RunLedger(lock.home)
    await Patience(SystemClock()).wait_out("database_away", lambda: ledger.cancel_orphans(manager))
