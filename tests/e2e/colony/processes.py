"""Queens and ants as processes of the real command line, to be killed, stopped and started again."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What may take long on a machine that does other things too, in seconds.
PATIENCE_S = 120.0

#: A process that was killed while it was stopped ends within this time, in seconds.
SETTLE_S = 0.2
#: What asking a queen that is away, or goes away, may raise.
Problem = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, OSError)


class Node:
    """One queen or ant; ``start`` after its death begins its next life under the same id."""

    def __init__(self, name: str, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready = folder / f"{name}.ready"
        self._command = [sys.executable, "-m", "formicary.cli.main", *arguments, "--ready-file", str(self._ready)]
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process; ``is_ready`` tells when it serves."""
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_ready(self) -> bool:
        return self.is_alive and self._ready.exists()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless the process is gone."""
        if self.process is not None and self.is_alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def kill_with_warden(self) -> None:
        """Ends an ant and its warden with SIGKILL; the ant stands still meanwhile, or one would act on the other."""
        warden = self.warden_pid()
        self.send(signal.SIGSTOP)
        if warden is not None:
            os.kill(warden, signal.SIGKILL)
        self.kill()

    def has_been_killed(self) -> bool:
        """Says whether it ended by SIGKILL, waiting a moment for a pending end to show."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(SETTLE_S) == -signal.SIGKILL
        return False

    def begin_stop(self) -> None:
        """Has it drain, also if it stands still."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)

    def stop(self) -> int:
        """Ends it with SIGTERM; returns its exit code."""
        self.begin_stop()
        return self.wait()

    def wait(self) -> int:
        """Returns its exit code once it has ended."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns what it logged under one event name."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [item for item in found if item.get("event") == name]

    def tail(self) -> str:
        """Returns the end of its log."""
        return "\n".join(self.log.read_text().splitlines()[-15:]) if self.log.exists() else ""

    def surprise(self) -> str:
        """Returns the traceback in its log, if there is one."""
        text = self.log.read_text()
        begin = text.find("Traceback")
        return text[begin : begin + 4000] if begin >= 0 else ""

    def warden_pid(self) -> int | None:
        """Returns the process id of an ant's warden."""
        assert self.process is not None
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry) == self.process.pid and b"warden" in _command_line(entry):
                return int(entry.name)
        return None


class Queen(Node):
    """A queen with its API."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        super().__init__(name, folder, ["queen", "--id", name, "--listen", self.address], environment)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout_s: float = 40.0
    ) -> Any:
        """Returns the JSON answer of the API."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        url = f"http://{self.address}/api/v1{path}"
        request = urllib.request.Request(url, data, headers or {}, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return json.loads(answer.read())

    def lines(self, path: str) -> list[Any]:
        """Returns an answer of JSON Lines."""
        with urllib.request.urlopen(f"http://{self.address}/api/v1{path}", timeout=40.0) as answer:
            return [json.loads(line) for line in answer]


class Patience:
    """Has an end, which moves away as long as there is an excuse."""

    def __init__(self, seconds: float, is_excused: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._is_excused = is_excused
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Says whether ``seconds`` have passed since there was an excuse."""
        now = time.monotonic()
        if self._is_excused():
            self._end = now + self._seconds
            return False
        return now >= self._end


class Colony:
    """Two queens and three ants, or as many as asked for, on given servers."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str,
        broker_url: str,
        queens: int = 2,
        ants: int = 3,
        slots: int = 4,
        lease_s: float = 10.0,
        ant_lease_s: float = 60.0,
    ) -> None:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
        self._folder = folder
        self._environment = bare | {
            "FORMICARY_DATABASE_URL": database_url,
            "FORMICARY_BROKER_URL": broker_url,
            "FORMICARY_ARTIFACTS_URL": (folder / "artifacts").as_uri(),
            "FORMICARY_LEASE_S": str(lease_s),
            "FORMICARY_ANT_LEASE_S": str(ant_lease_s),
            "FORMICARY_LOG_FORMAT": "json",
        }
        self.slots = slots
        #: Says whether a colony may stand still now, because what it waits for is away; waiting is not counted then.
        self.is_excused: Callable[[], bool] = lambda: False
        self.queens: dict[str, Queen] = {}
        self.ants: dict[str, Node] = {}
        for number in range(1, queens + 1):
            self.add_queen(f"q{number}")
        for number in range(1, ants + 1):
            self.add_ant(f"a{number}")

    @property
    def nodes(self) -> dict[str, Node]:
        return {**self.queens, **self.ants}

    def add_queen(self, name: str) -> Queen:
        """Adds a queen that is not started yet."""
        self.queens[name] = Queen(name, self._folder, self._home(name))
        return self.queens[name]

    def add_ant(self, name: str, process_name: str = "") -> Node:
        """Adds an ant that is not started yet; ``process_name`` tells a second process of one id apart."""
        process_name = process_name or name
        arguments = ["ant", "--id", name, "--slots", str(self.slots), "--python-path", str(Path(__file__).parent)]
        self.ants[process_name] = Node(process_name, self._folder, arguments, self._home(process_name))
        return self.ants[process_name]

    def _home(self, name: str) -> dict[str, str]:
        return {**self._environment, "FORMICARY_HOME": str(self._folder / name)}

    def start(self) -> None:
        """Starts everything and returns when it serves."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            self.until(lambda node=node: node.is_ready, f"{node.name} is ready")  # type: ignore[misc]

    def stop(self) -> dict[str, int]:
        """Drains ants, then queens; returns the exit codes of those that lived."""
        codes = {}
        for group in (self.ants, self.queens):
            living = [node for node in group.values() if node.is_alive]
            for node in living:
                node.begin_stop()
            codes.update({node.name: node.wait() for node in living})
        return codes

    def end(self) -> None:
        """Ends what is left, however."""
        for node in self.nodes.values():
            if node.is_alive:
                node.kill()

    def any_queen(self) -> Queen:
        """Returns a queen that serves."""
        return next(queen for queen in self.queens.values() if queen.is_ready)

    def until(self, claim: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> float:
        """Returns the seconds until the claim held; fails with the ends of the logs when the time is up."""
        began = time.monotonic()
        patience = Patience(timeout_s, self.is_excused)
        while not claim():
            assert not patience.is_over(), f"waited {timeout_s} s until {what}\n{self.tails()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def failures(self) -> list[str]:
        """Returns what no process may do, whatever happens around it: end by itself, or be surprised by an error."""
        dead = [f"{node.name} is dead:\n{node.tail()}" for node in self.nodes.values() if not node.is_alive]
        surprised = [f"{node.name}: {text}" for node in self.nodes.values() if (text := node.surprise())]
        return dead + surprised

    def tails(self) -> str:
        """Returns the ends of all logs."""
        return "\n".join(f"--- {node.name}\n{node.tail()}" for node in self.nodes.values())

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        refusals: Container[int] = (),
    ) -> Any:
        """Asks whichever queen answers, until one does; for what can be repeated.

        An answer that is none of success, ``refusals`` and a 503 that says when to come again is a failure.
        """
        patience = Patience(PATIENCE_S, self.is_excused)
        while True:
            for queen in [queen for queen in self.queens.values() if queen.is_ready]:
                try:
                    return queen.call(method, path, body, headers, timeout_s=5.0)
                except urllib.error.HTTPError as error:
                    if error.code in refusals:
                        return None
                    if error.code != 503 or not error.headers["Retry-After"]:
                        raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from error
                except Problem:
                    continue
            assert not patience.is_over(), f"no queen answers {method} {path}\n{self.tails()}"
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
