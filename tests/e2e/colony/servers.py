"""The servers that a colony of processes stands on: a broker of ``scripts/servers``, and the embedded Postgres."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from formicary.store.embedded import EmbeddedPostgres

SCRIPT = Path(__file__).parents[3] / "scripts" / "servers"

T = TypeVar("T")

#: Kafka and Pulsar live for seconds under chaos: compiling them well would cost more than it saves.
QUICK_JAVA = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}

#: Of the URL: a consumer that died is noticed soon.
OPTIONS = {"redis": "?claim_after_s=3", "kafka": "?claim_after_s=3", "pulsar": ""}


class BrokerServer:
    """A broker in a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self.url = ""

    def start(self) -> None:
        """Starts it, or starts it again with the data it had."""
        variables = dict(line.removeprefix("export ").split("=", 1) for line in self._run("start").splitlines())
        self.url = shlex.split(variables[f"FORMICARY_TEST_{self.name.upper()}_URL"])[0] + OPTIONS[self.name]

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._run("stop", "--signal", "KILL")

    def stop(self) -> None:
        """Ends it; its data and its log stay."""
        self._run("stop")

    def remove(self) -> None:
        """Ends it and deletes its data."""
        self._run("stop", "--purge")

    def _run(self, action: str, *arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), action, self.name, "--dir", str(self._folder), *arguments]
        environment = QUICK_JAVA | os.environ
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


class PostgresServer:
    """A Postgres of one's own. Its owner is a thread of this process, which also starts it again after a crash."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self.url = ""

    def start(self) -> None:
        """Returns when it serves."""
        self._thread.start()
        self.url = self._wait(self._server.start())

    def kill(self) -> None:
        """Kills it as a crash would; it is started again at once."""
        if (pid := self._server.pid) is not None:
            os.kill(pid, signal.SIGKILL)

    def shut_down(self) -> None:
        """Leaves every client without it until ``bring_back``."""
        self._wait(self._server.stop())

    def bring_back(self) -> None:
        """Starts it again with the data it had."""
        self._wait(self._server.start())

    def new_database(self, name: str) -> str:
        """Makes an empty database and returns its URL."""
        self._wait(self._create(name))
        return self.url.replace("/postgres?", f"/{name}?")

    def fetch(self, database_url: str, sql: str) -> list[Any]:
        """Returns the rows of a statement, as an onlooker sees them."""
        return list(self._wait(_fetch(database_url, sql)))

    async def _create(self, name: str) -> None:
        await _fetch(self.url, f'CREATE DATABASE "{name}"')

    def stop(self) -> None:
        """Ends it."""
        self.shut_down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)


async def _fetch(database_url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(await connection.fetch(sql))
    finally:
        await connection.close()
