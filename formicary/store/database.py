"""The pool of connections, and the translation of drivers' errors at its edge."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from formicary.errors import LoginRefusedError, UnavailableError
from formicary.store.errors import DataRefusedError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

#: A row as the driver gives it: by position and by name.
Record = asyncpg.Record

SERVER_SETTINGS = {"application_name": "formicary", "jit": "off", "timezone": "UTC"}
COMMAND_TIMEOUT_S = 60.0
#: How long an unused connection is kept: a burst's extra server processes are memory.
IDLE_CONNECTION_S = 60.0
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0

#: A server that is absent, starting, stopping, crashed or full, or a connection that broke.
AWAY_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's state after a farewell that came between two statements
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
#: A server that is there and cannot write: no room, memory or file left, read-only, a statement ended from outside.
UNABLE_ERRORS = (
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
)
#: A value that the driver cannot encode, or that the server refuses.
REFUSED_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    UnicodeEncodeError,
    OverflowError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turns the driver's errors into the store's.

    Raises:
        DataRefusedError: a value cannot be stored.
        UnavailableError: the database cannot be reached, and whether a statement took effect is unknown; or it has no
            room to carry it out; or it gave the statement up, which waited for one that waited for it: asking again
            will do.
    """
    try:
        yield
    except REFUSED_ERRORS as error:
        raise DataRefusedError(f"Postgres refuses a value: {error}") from error
    except AWAY_ERRORS as error:
        raise UnavailableError(f"the database cannot be reached: {_words(error)}") from error
    except UNABLE_ERRORS as error:
        raise UnavailableError(f"the database cannot carry out a statement: {error}") from error
    except asyncpg.TransactionRollbackError as error:
        raise UnavailableError(f"the database gave up a statement: {error}") from error


class Database:
    """A pool of connections to one database. ``close`` is safe twice and before ``open``."""

    def __init__(self, url: str, *, min_size: int = 2, max_size: int = 8, connect_timeout_s: float = 10.0) -> None:
        self._url = url
        self._min_size = min_size
        self._max_size = max_size
        self._connect_timeout_s = connect_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connects.

        Raises:
            LoginRefusedError: the database refuses the log-in, or has no such name.
            UnavailableError: it cannot be reached.
        """
        if self._pool is not None:
            return
        with translated(), _refused_login():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=self._min_size,
                max_size=self._max_size,
                timeout=self._connect_timeout_s,
                command_timeout=COMMAND_TIMEOUT_S,
                max_inactive_connection_lifetime=IDLE_CONNECTION_S,
                server_settings=SERVER_SETTINGS,
                reset=_keep_session,
            )

    async def close(self) -> None:
        """Closes every connection; waits up to 5 s for those in use."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(5.0):
                await pool.close()
        except (TimeoutError, *AWAY_ERRORS):
            pool.terminate()

    async def ping(self) -> None:
        """Makes one round trip.

        Raises:
            UnavailableError: it failed.
        """
        await self.fetch("SELECT 1")

    async def fetch(self, sql: str, *values: object) -> list[Record]:
        """Runs one statement, alone in its transaction, and returns its rows.

        Raises:
            DataRefusedError: a value cannot be stored; nothing was written.
            UnavailableError: the database cannot be reached.
        """
        async with self.connection() as connection:
            return await connection.fetch(sql, *values)

    async def fetch_one(self, sql: str, *values: object) -> Record | None:
        """Like ``fetch``; returns the first row, None where there is none."""
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    @asynccontextmanager
    async def connection(self) -> "AsyncIterator[PoolConnectionProxy[asyncpg.Record]]":
        """Lends a connection of the pool.

        Raises:
            LoginRefusedError: the database refuses the log-in by now, or is gone from its server.
            UnavailableError: it cannot be reached.
        """
        if self._pool is None:
            raise UnavailableError("the database is not open")
        with translated():
            with _refused_login():
                connection = await self._pool.acquire(timeout=self._connect_timeout_s)
            try:
                yield connection
            finally:
                await self._pool.release(connection)

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Opens a connection of the caller's own, outside the pool.

        Raises:
            UnavailableError: the database cannot be reached.
        """
        with translated(), _refused_login():
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                self._url, timeout=self._connect_timeout_s, server_settings=SERVER_SETTINGS
            )
            return connection


async def _keep_session(connection: object) -> None:
    """Spares every loan a round trip: nobody changes a session. asyncpg itself still ends an open transaction."""


@contextmanager
def _refused_login() -> Iterator[None]:
    try:
        yield
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.ClientConfigurationError,
        ssl.SSLCertVerificationError,
        ValueError,
    ) as error:
        raise LoginRefusedError(f"the database refuses FORMICARY_DATABASE_URL: {_words(error)}") from error


def _words(error: Exception) -> str:
    """Returns what the driver says, and what would be right where that does not follow from it."""
    words = str(error) or type(error).__name__
    if "rejected SSL upgrade" in words:
        return f"{words}: it has no TLS, which sslmode asks for, or is no PostgreSQL server"
    if "no encryption" in words:
        return f"{words}: it may want TLS; write ?sslmode=require"
    return re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no port", words)


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> Sequence[Sequence[Any]]:
    """Returns rows as columns, ``width`` of them also where there are no rows."""
    return tuple(zip(*rows, strict=True)) if rows else ((),) * width
