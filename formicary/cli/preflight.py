"""``queen --check`` and ``ant --check``: is everything there that the process would need, before it is started?

Nothing is changed, but that empty folders are made. All checks are made, side by side, each with its own time limit, so
that one look tells everything that is wrong.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import typer

from brokers.base import Broker
from brokers.errors import BrokerError
from brokers.registry import make_broker
from executors.base import Executor
from executors.errors import ExecutorError
from executors.registry import make_executors
from formicary import log, settings
from formicary.ant_options import AntOptions, executor_options
from formicary.artifacts.base import ArtifactError, ArtifactStore
from formicary.artifacts.registry import make_store
from formicary.bus import Bus
from formicary.cli.output import print_table
from formicary.cli.serving import run_loop
from formicary.cli.unknown import unknown_settings
from formicary.clock import SystemClock
from formicary.errors import FormicaryError, InvalidInputError
from formicary.exchange import BrokerExchange
from formicary.home import HomeLock, prove_writable
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
    """A part of the process, and how to find out whether it can work.

    ``look`` imports and makes what it needs; what it returns asks the world, and says what was found.
    """

    name: str
    look: Callable[[], Callable[[], Awaitable[str]]]


class Finding(NamedTuple):
    """What is known of a part: ``ok``, ``warn`` or ``wrong``, and why."""

    word: str
    part: str
    words: str


def check_queen(load: Callable[[], Settings]) -> int:
    """Checks what a queen needs; returns the exit code."""
    return _run(
        load,
        lambda loaded: [
            Check("database", lambda: partial(_database, loaded)),
            Check("broker", lambda: partial(_broker, loaded, make_broker(loaded.broker_url))),
            Check("artifacts", lambda: partial(_artifacts, loaded, make_store(loaded.artifacts_url))),
            Check("listen", lambda: partial(_listen, loaded)),
        ],
    )


def check_ant(load: Callable[[], Settings], options: AntOptions) -> int:
    """Checks what an ant needs; returns the exit code."""
    return _run(
        load,
        lambda loaded: [
            Check("broker", lambda: partial(_broker, loaded, make_broker(loaded.broker_url))),
            Check("artifacts", lambda: partial(_artifacts, loaded, make_store(loaded.artifacts_url))),
            Check("home", lambda: partial(_home, loaded)),
            *_method_checks(options, loaded),
        ],
    )


def _run(load: Callable[[], Settings], checks_of: Callable[[Settings], Sequence[Check]]) -> int:
    findings = [Finding("warn", "settings", sentence) for sentence in unknown_settings(os.environ).values()]
    try:
        loaded = load()
    except InvalidInputError as error:
        findings.append(_wrong("settings", error))
    else:
        log.configure("error", loaded.log_format)
        findings.append(Finding("ok", "settings", "can be read"))
        findings += run_loop(make_checks(checks_of(loaded)))
    print_table(("CHECK", "PART", "FINDING"), findings)
    wrong = [finding.part for finding in findings if finding.word == "wrong"]
    if wrong:
        typer.echo(f"formicary: wrong: {', '.join(wrong)}", err=True)
    return 1 if wrong else 0


async def make_checks(checks: Sequence[Check]) -> list[Finding]:
    """Makes all side by side: what is slow holds up nobody. Imports come first, for they do."""
    looks = [_prepared(check) for check in checks]
    return await asyncio.gather(*(_found(check.name, look) for check, look in zip(checks, looks, strict=True)))


def _prepared(check: Check) -> Callable[[], Awaitable[str]] | Finding:
    try:
        return check.look()
    except _EXPECTED as error:
        return _wrong(check.name, error)


async def _found(name: str, look: Callable[[], Awaitable[str]] | Finding) -> Finding:
    if isinstance(look, Finding):
        return look
    try:
        async with asyncio.timeout(LIMIT_S):
            return Finding("ok", name, await look())
    except TimeoutError:
        return Finding("wrong", name, f"does not answer within {LIMIT_S:g} s")
    except _EXPECTED as error:
        return _wrong(name, error)


def _wrong(name: str, error: Exception) -> Finding:
    return Finding("wrong", name, " ".join(str(error).split()))


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


async def _broker(loaded: Settings, broker: Broker) -> str:
    try:
        await broker.open()
    finally:
        await broker.close()
    if not broker.capabilities.survives_process:
        raise InvalidInputError(f"{loaded.broker_url} reaches nobody outside its own process: set FORMICARY_BROKER_URL")
    return f"{settings.hide_secrets(loaded.broker_url)} takes the credentials; formicary broker check proves the rest"


async def _artifacts(loaded: Settings, store: ArtifactStore) -> str:
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


def _method_checks(options: AntOptions, loaded: Settings) -> list[Check]:
    """Returns a check for each executor, under the name of its first method."""
    try:
        executors = _executors(options, loaded)
    except _EXPECTED as error:
        return [Check("methods", partial(_raise, error))]
    methods: dict[Executor, list[str]] = {}
    for method, executor in executors.items():
        methods.setdefault(executor, []).append(method)
    return [Check(names[0], partial(partial, _methods, executor, names)) for executor, names in methods.items()]


def _raise(error: Exception) -> NoReturn:
    raise error


def _executors(options: AntOptions, loaded: Settings) -> Mapping[str, Executor]:
    paths = tuple(map(Path, options.python_paths))
    if missing := [str(path) for path in paths if not path.is_dir()]:
        raise InvalidInputError(f"--python-path: {', '.join(missing)} is no folder")
    broker, clock = make_broker(loaded.broker_url), SystemClock()
    exchange = BrokerExchange(broker, Bus(broker, "check", clock), clock, None)
    chosen = executor_options(loaded, options, loaded.home)
    return make_executors(options.methods, replace(chosen, exchange=exchange))


async def _methods(executor: Executor, methods: Sequence[str]) -> str:
    try:
        await executor.check()
    finally:
        await executor.close()
    return f"runs {', '.join(methods)}"


async def _home(loaded: Settings) -> str:
    prove_writable(loaded.home)
    return f"{loaded.home} can be written"
