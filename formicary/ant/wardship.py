"""The ant's side of its warden: starts it, tells it what runs, hears when it is gone.

The words that go over the socket are listed in ``warden.py``.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from executors.errors import StartFailedError
from formicary.ant.assignments import Assignment
from formicary.ant.config import AntConfig
from formicary.ant.errors import AntIdHeldError, WardenLostError
from formicary.ids import Incarnation

log = structlog.get_logger(__name__)

#: A warden that leaves takes at most this long before its end is forced, in seconds.
_LEAVE_S: Final = 5.0
_NOT_ALLOWED: Final = "the ant's lease ended, or its warden is gone: nothing may be started"
_SCRIPT: Final = Path(__file__).with_name("warden.py")


class Wardship:
    """The connection to the warden of one ant.

    Args:
        on_lapse: called with the incarnation whose lease the warden saw end, before it kills. Whatever of it
            runs in the ant's own process must be over within the warden's patience, and ``over`` be said.
    """

    def __init__(self, config: AntConfig, on_lapse: Callable[[Incarnation], None]) -> None:
        self._config = config
        self._on_lapse = on_lapse
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._answers: dict[int, asyncio.Future[bool]] = {}
        self._count = 0
        self._is_closing = False
        #: Lives of former ants of this id, of which nothing lives any more.
        self.former: tuple[Incarnation, ...] = ()
        #: Set when the warden is gone and was not asked to go.
        self.is_lost = asyncio.Event()

    async def start(self) -> None:
        """Starts the warden and returns when it holds the ant's lock: no work of a former ant of this id lives.

        Raises:
            AntIdHeldError: a live process of this machine serves under the id.
            WardenLostError: the warden did not come up.
        """
        self._config.lock_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(theirs.fileno(), self._config.lock_path.with_suffix(".warden.log"))
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._ready = asyncio.get_running_loop().create_future()
        self._listener = asyncio.create_task(self._listen(reader), name="wardship")
        self._say("config", *self._config_words())
        await self._ready

    def begin(self, incarnation: Incarnation) -> None:
        """Names the incarnation whose work comes next."""
        self._say("life", incarnation)

    def prolong(self, incarnation: Incarnation, leases: Mapping[int, float]) -> None:
        """Tells until when leases last, in seconds of CLOCK_BOOTTIME."""
        for shard, expires_at in leases.items():
            self._say("lease", incarnation, shard, expires_at)

    async def register(self, pid: int, assignment: Assignment) -> bool:
        """Asks the warden to guard a process group; tells whether it promised to."""
        return await self._ask("register", pid, assignment.incarnation, assignment.shard, *assignment.key)

    def forget(self, pid: int) -> None:
        """Tells that a process group is gone."""
        self._say("forget", pid)

    async def admit(self, assignment: Assignment) -> bool:
        """Asks the warden to end what the engine runs of an attempt, after the ant; tells whether it promised to."""
        return await self._ask("admit", assignment.incarnation, assignment.shard, *assignment.key)

    async def allow(self, assignment: Assignment) -> bool:
        """Asks the warden whether the lease holds under which an attempt was accepted."""
        return await self._ask("allow", assignment.incarnation, assignment.shard)

    def dismiss(self, assignment: Assignment) -> None:
        """Tells that nothing of an attempt is left on the engine."""
        self._say("dismiss", *assignment.key)

    async def sync(self) -> None:
        """Returns when everything that the warden said so far was heard: a lapse is heard before what it killed.

        At once where no lease can lapse.
        """
        if self._config.survives_process:
            await self._ask("sync")

    async def end(self, incarnation: Incarnation) -> None:
        """Has all processes of an incarnation killed; returns when they are dead."""
        await self._ask("end", incarnation)

    def over(self, incarnation: Incarnation) -> None:
        """Confirms that nothing of a lapsed incarnation runs in the ant's own process."""
        self._say("over", incarnation)

    async def close(self) -> None:
        """Sends the warden home; it kills what is left first. Safe twice and before ``start``."""
        self._is_closing = True
        if self._writer is not None:
            self._say("bye")
            self._writer.close()
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(_reap, process)
        if self._listener is not None:
            self._listener.cancel()

    async def _ask(self, word: str, *words: object) -> bool:
        if self.is_lost.is_set() or self._writer is None:
            return False
        self._count += 1
        number = self._count
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._say(word, number, *words)
        try:
            return await answer
        finally:
            del self._answers[number]

    def _say(self, *words: object) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write("\t".join(map(str, words)).encode() + b"\n")

    def _config_words(self) -> tuple[object, ...]:
        config = self._config
        url = config.broker_url if config.survives_process else None
        paths = "\x1f".join(sys.path)
        return (config.lock_path, os.getpid(), config.id, config.lease_s, url or "", paths, config.engine_url or "")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := await _line(reader):
            self._hear(line.decode().rstrip("\n").split("\t"))
        self._lose("it ended by itself")

    def _hear(self, words: list[str]) -> None:
        match words:
            case ["ready", *lives] if self._ready is not None and not self._ready.done():
                self.former = tuple(Incarnation(life) for life in lives)
                self._ready.set_result(None)
            case ["held", holder] if self._ready is not None and not self._ready.done():
                self._ready.set_exception(AntIdHeldError(self._config.id, holder))
            case ["yes" | "no" as word, number] if (answer := self._answers.get(int(number))) and not answer.done():
                answer.set_result(word == "yes")
            case ["lapsed", incarnation]:
                self._on_lapse(Incarnation(incarnation))

    def _lose(self, reason: str) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(WardenLostError(self._config.id, reason))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(False)
        if not self._is_closing:
            log.error("warden_lost", ant_id=self._config.id)
            self.is_lost.set()


class AttemptGuard:
    """What an executor sees of the warden (``executors.base.Guard``), for one attempt."""

    __slots__ = ("_assignment", "_wardship")

    def __init__(self, wardship: Wardship, assignment: Assignment) -> None:
        self._wardship = wardship
        self._assignment = assignment

    async def register(self, pid: int) -> None:
        """Returns when the warden has promised to kill the process group ``pid`` after the ant's death.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended, or the warden is gone.
        """
        if not await self._wardship.register(pid, self._assignment):
            raise StartFailedError(_NOT_ALLOWED)

    async def forget(self, pid: int) -> None:
        """Tells the warden that the process group is gone."""
        self._wardship.forget(pid)

    async def admit(self) -> None:
        """Returns when the warden has promised to end whatever the engine runs of this ant, after its death.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended, or the warden is gone.
        """
        if not await self._wardship.admit(self._assignment):
            raise StartFailedError(_NOT_ALLOWED)

    async def dismiss(self) -> None:
        """Tells the warden that nothing of the attempt is left on the engine."""
        self._wardship.dismiss(self._assignment)

    async def allow(self) -> None:
        """Returns when the warden has confirmed the lease.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended, or the warden is gone.
        """
        if not await self._wardship.allow(self._assignment):
            raise StartFailedError(_NOT_ALLOWED)


def _spawn(descriptor: int, log_path: Path) -> "subprocess.Popen[bytes]":
    """Starts the warden by its file: importing the package would cost it three times the memory and time."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORMICARY_")}
    with log_path.open("wb") as log_file:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT), str(descriptor)],
            pass_fds=(descriptor,),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_file,
            env=environment,
            cwd="/",
        )


def _reap(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_LEAVE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except (ConnectionError, ValueError):
        return b""
