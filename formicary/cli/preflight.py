"""``queen --check`` and ``ant --check``: is everything there that the process would need, before it is started?

Nothing is changed, but that empty folders are made. Every check has its own time limit, and all are made, so that one
look tells everything that is wrong.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import typer

from brokers.errors import BrokerError
from brokers.registry import make_broker
from executors.errors import ExecutorError
from executors.registry import make_executors
from formicary import log, settings
from formicary.ant_options import AntOptions, executor_options
from formicary.artifacts.base import ArtifactError
from formicary.artifacts.registry import make_store
from formicary.bus import Bus
from formicary.cli.serving import run_loop
from formicary.clock import SystemClock
from formicary.errors import FormicaryError, InvalidInputError
from formicary.exchange import BrokerExchange
from formicary.home import HomeLock
from formicary.queen.api.server import ApiServer
from formicary.settings import Settings
from formicary.store.database import Database
from formicary.store.migrations import versions
from formicary.store.postmaster import find_programs

#: How long each server may take to answer, in seconds.
LIMIT_S: Final = 5.0
_OLDEST_POSTGRES: Final = 150_000

_EXPECTED: Final = (FormicaryError, ArtifactError, BrokerError, ExecutorError, OSError)


class Check(NamedTuple):
    """A part of the process, and how to find out whether it can work; ``look`` returns what it found."""

    name: str
    look: Callable[[], Awaitable[str]]


def check_queen(load: Callable[[], Settings]) -> int:
    """Checks what a queen needs; returns the exit code."""
    return _run(
        load,
        lambda loaded: [
            Check("database", lambda: _database(loaded)),
            Check("broker", lambda: _broker(loaded)),
            Check("artifacts", lambda: _artifacts(loaded)),
            Check("listen", lambda: _listen(loaded)),
        ],
    )


def check_ant(load: Callable[[], Settings], options: AntOptions) -> int:
    """Checks what an ant needs; returns the exit code."""
    return _run(
        load,
        lambda loaded: [
            Check("broker", lambda: _broker(loaded)),
            Check("artifacts", lambda: _artifacts(loaded)),
            Check("methods", lambda: _methods(options, loaded)),
            Check("home", lambda: _home(loaded)),
        ],
    )


def _run(load: Callable[[], Settings], checks_of: Callable[[Settings], Sequence[Check]]) -> int:
    try:
        loaded = load()
    except InvalidInputError as error:
        _say_wrong("settings", str(error))
        return 1
    log.configure("error", loaded.log_format)
    typer.echo("ok     settings: can be read")
    return run_loop(_make(checks_of(loaded)))


async def _make(checks: Sequence[Check]) -> int:
    results = [await _is_well(check) for check in checks]
    return 0 if all(results) else 1


async def _is_well(check: Check) -> bool:
    try:
        async with asyncio.timeout(LIMIT_S):
            found = await check.look()
    except TimeoutError:
        _say_wrong(check.name, f"does not answer within {LIMIT_S:g} s")
    except _EXPECTED as error:
        _say_wrong(check.name, str(error))
    else:
        typer.echo(f"ok     {check.name}: {found}")
        return True
    return False


def _say_wrong(name: str, reason: str) -> None:
    typer.echo(f"wrong  {name}: {' '.join(reason.split())}", err=True)


async def _database(loaded: Settings) -> str:
    if loaded.database_url is None:
        find_programs()
        with HomeLock(loaded.home, "check"):
            return f"will be started under {loaded.home}"
    database = Database(loaded.database_url, min_size=1, max_size=1, connect_timeout_s=LIMIT_S)
    try:
        await database.open()
        return await _postgres(database)
    finally:
        await database.close()


async def _postgres(database: Database) -> str:
    (row,) = await database.fetch(
        "SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS text,"
        " has_schema_privilege(current_schema(), 'CREATE') AS may_create"
    )
    if row["number"] < _OLDEST_POSTGRES:
        raise InvalidInputError(f"PostgreSQL {row['text']} is too old: 15 or newer is needed")
    present, newest = await versions(database)
    if present is not None and present > newest:
        raise InvalidInputError(f"its schema has version {present}, this program knows {newest}: upgrade this program")
    if present is None and not row["may_create"]:
        raise InvalidInputError("it is empty, and the user may not create tables in it: grant CREATE on its schema")
    if present == newest:
        return f"PostgreSQL {row['text']}, schema version {present}"
    change = "schema to be created" if present is None else f"schema to be led from version {present} to {newest}"
    return f"PostgreSQL {row['text']}, {change} at the first start"


async def _broker(loaded: Settings) -> str:
    broker = make_broker(loaded.broker_url)
    try:
        await broker.open()
    finally:
        await broker.close()
    if not broker.capabilities.survives_process:
        raise InvalidInputError(f"{loaded.broker_url} reaches nobody outside its own process: set FORMICARY_BROKER_URL")
    return f"{settings.hide_secrets(loaded.broker_url)} takes the credentials; formicary broker check proves the rest"


async def _artifacts(loaded: Settings) -> str:
    store = make_store(loaded.artifacts_url)
    try:
        await store.open()
    finally:
        await store.close()
    return f"{settings.hide_secrets(loaded.artifacts_url)} can be written"


async def _listen(loaded: Settings) -> str:
    host, port = settings.split_listen(loaded.listen)
    ApiServer.check_listen((host, port))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return f"{loaded.listen} is free"


async def _methods(options: AntOptions, loaded: Settings) -> str:
    paths = tuple(map(Path, options.python_paths))
    if missing := [str(path) for path in paths if not path.is_dir()]:
        raise InvalidInputError(f"--python-path: {', '.join(missing)} is no folder")
    broker, clock = make_broker(loaded.broker_url), SystemClock()
    exchange = BrokerExchange(broker, Bus(broker, "check", clock), clock, None)
    chosen = executor_options(loaded, options, loaded.home)
    executors = make_executors(options.methods, replace(chosen, exchange=exchange))
    for executor in set(executors.values()):
        try:
            await executor.check()
        finally:
            await executor.close()
    return ", ".join(executors)


async def _home(loaded: Settings) -> str:
    loaded.home.mkdir(parents=True, exist_ok=True)
    probe = loaded.home / ".check"
    probe.write_bytes(b"")
    probe.unlink()
    return f"{loaded.home} can be written"
