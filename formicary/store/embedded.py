"""A PostgreSQL server of one's own, from a wheel, when no database URL is given.

Rules:

- One owner per folder: an exclusive lock on ``owner.lock``, held by the process and gone with it.
- The server dies with its owner, however that dies (``launcher.py``); the next start waits for its end.
- It listens on a Unix socket only, in a folder that only its user (and root) can pass.
- ``fsync`` and ``synchronous_commit`` stay on: what was acknowledged is there after any kill.
- A server that dies while its owner lives is started again.
"""

import asyncio
import fcntl
import getpass
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote

import structlog

from formicary.errors import HomeHeldError
from formicary.store import launcher
from formicary.store.account import Account, choose_account
from formicary.store.errors import EmbeddedPostgresError
from formicary.store.postmaster import find_programs, wait_until_ended, wait_until_ready, wait_until_vacant

log = structlog.get_logger(__name__)

USER = "formicary"
SOCKET_NAME = ".s.PGSQL.5432"
#: Longest path of a Unix socket, in bytes.
SOCKET_PATH_LIMIT = 107
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
WATCH_INTERVAL_S = 0.25
LOG_LIMIT_BYTES = 4 << 20
START_TRIES = 5

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "50",
    "superuser_reserved_connections": "3",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    "io_method": "sync",
    "jit": "off",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "2",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "random_page_cost": "1.1",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """The server of one folder. ``start`` and ``stop`` may be repeated; ``stop`` is safe before ``start``.

    Start it from a thread that lives as long as the server should: the kernel ties the server to that thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._account = Account()
        self._programs = Path()
        self._sockets = self._folder / "socket"
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster, None while there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def url(self) -> str:
        """What ``Database`` connects to."""
        return f"postgresql://{USER}@/postgres?host={quote(str(self._sockets), safe='')}"

    async def start(self) -> str:
        """Makes the folder's cluster where there is none, starts the server and returns its URL once it serves.

        Raises:
            HomeHeldError: another process owns the folder.
            EmbeddedPostgresError: the server does not start; the text holds the end of its log.
        """
        if self._lock is None:
            self._prepare()
            try:
                await self._launch()
            except BaseException:
                self._release()
                raise
            self._watcher = asyncio.create_task(self._watch(), name="embedded-postgres")
        return self.url

    async def stop(self) -> None:
        """Ends the server: connections are closed, committed work is safe; killed after 10 s."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None and not watcher.done():
            watcher.cancel()
            await asyncio.wait({watcher})
        if self._process is not None:
            await _end(self._process)
            self._process = None
        self._release()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            if self.pid is not None:
                continue
            log.warning("embedded_postgres_died", folder=str(self._folder), exit_code=self._exit_code())
            try:
                await self._launch()
                log.info("embedded_postgres_restarted", folder=str(self._folder), pid=self.pid)
            except (EmbeddedPostgresError, OSError) as error:
                log.error("embedded_postgres_restart_failed", folder=str(self._folder), error=str(error))
                await asyncio.sleep(1.0)

    def _exit_code(self) -> int | None:
        return self._process.poll() if self._process else None

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(self._folder)
        try:
            self._programs = find_programs()
            self._account = choose_account(self._data, [self._data, self._programs / "postgres"])
            self._account.own(self._folder)
            self._sockets = _socket_folder(self._folder)
            self._account.own(self._sockets)
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        if self._lock is None:
            return
        if self._sockets.parent != self._folder:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._lock.close()
        self._lock = None

    async def _launch(self) -> None:
        await wait_until_vacant(self._data)
        if not (self._data / "PG_VERSION").exists():
            await self._initialise()
        for _ in range(START_TRIES):
            self._process = self._spawn("postgres", "-D", str(self._data), *self._settings())
            if await wait_until_ready(self._process, self._data, START_LIMIT_S):
                return
            await asyncio.sleep(0.2)
        raise EmbeddedPostgresError(f"the embedded Postgres does not start:\n{self._end_of_log()}")

    def _settings(self) -> list[str]:
        settings = SETTINGS | {"unix_socket_directories": f'"{self._sockets}"'}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _initialise(self) -> None:
        """Makes the cluster beside its place and moves it there whole, so that a kill leaves no half cluster."""
        half = self._folder / "data.new"
        shutil.rmtree(half, ignore_errors=True)
        options = ("-U", USER, "-E", "UTF8", "--locale=C", "--auth=trust", "--no-instructions")
        process = self._spawn("initdb", "-D", str(half), *options)
        try:
            await wait_until_ended(process)
        except asyncio.CancelledError:
            await _end(process)
            raise
        if process.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed in {self._folder}:\n{self._end_of_log()}")
        if self._account.is_other:
            _admit_only_this_user(half)
        half.rename(self._data)

    def _spawn(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        account = self._account
        numbers = (os.getpid(), account.uid, account.gid, account.capability, int(signal.SIGINT))
        command = [sys.executable, "-I", "-S", launcher.__file__, *map(str, numbers)]
        with self._open_log() as output:
            return subprocess.Popen(
                [*command, str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )

    def _open_log(self) -> IO[bytes]:
        path = self._folder / "postgres.log"
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.old"))
        return path.open("ab")

    def _end_of_log(self) -> str:
        text = (self._folder / "postgres.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-8:])


def _lock_folder(folder: Path) -> IO[str]:
    file = (folder / "owner.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = _holder(file.read())
        file.close()
        raise HomeHeldError(str(folder), holder) from None
    file.truncate(0)
    file.write(json.dumps({"pid": str(os.getpid()), "mode": "embedded Postgres"}))
    file.flush()
    return file


def _holder(text: str) -> dict[str, str]:
    with suppress(json.JSONDecodeError):
        return dict(json.loads(text))
    return {}


def _socket_folder(folder: Path) -> Path:
    """Returns ``socket`` in the folder; where its path is too long, one in the temporary folder, named after it."""
    inside = folder / "socket"
    if len(os.fsencode(inside / SOCKET_NAME)) <= SOCKET_PATH_LIMIT:
        inside.mkdir(exist_ok=True)
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"formicary-{os.geteuid()}-{digest}"
    with suppress(FileExistsError):
        outside.mkdir(mode=0o700)
    if outside.is_symlink() or outside.stat().st_uid not in {os.geteuid(), folder.stat().st_uid}:
        raise EmbeddedPostgresError(f"{outside} belongs to somebody else; remove it or choose a shorter FORMICARY_HOME")
    return outside


def _admit_only_this_user(data: Path) -> None:
    """Asks the kernel who calls: where the server's user is shared with other programs, the folder is no guard."""
    (data / "pg_hba.conf").write_text("local all all peer map=formicary\n")
    (data / "pg_ident.conf").write_text(f"formicary {getpass.getuser()} {USER}\nformicary root {USER}\n")


async def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT_S):
                await wait_until_ended(process)
                return
