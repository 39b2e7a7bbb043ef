"""One connected worker: reads what it says, writes what it is told, and notices when it is gone.

Everything that is told goes through a queue with a writer of its own, so nobody waits for a worker that does not read.
Reading stops while a log has no room: so a slow broker slows the worker down, and such silence is not held against it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import WSMsgType, web

from executors.base import Offer, Reason
from executors.errors import ExecutorLostError
from executors.mailbox import Mailbox
from executors.remote_messages import (
    Artifact,
    BadMessageError,
    Cancel,
    Drain,
    Error,
    Log,
    Ping,
    Pong,
    Register,
    Result,
    Task,
    ToWorker,
    decode,
    encode,
)

log = structlog.get_logger(__name__)

#: Messages that may wait for a worker; one that reads nothing meanwhile is cut off.
MAX_UNREAD: Final = 10_000
#: A worker is lost when it gave no sign of life for so many pauses between pings.
_SILENT_BEATS: Final = 2

Inbox = Mailbox[Log | Artifact | Result]


class RemoteWorker:
    """A registered worker.

    Args:
        connection: closes when the worker is cut off.
        freed: called when the worker has room again, or takes no more.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        connection: asyncio.Transport | None,
        registration: Register,
        heartbeat_s: float,
        freed: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._connection = connection
        self._heartbeat_s = heartbeat_s
        self._freed = freed
        self.name = registration.name
        self.offer = Offer(tuple(sorted(set(registration.methods))), tuple(sorted(set(registration.tags))))
        self.slots = registration.slots
        self.is_draining = False
        self._tasks: dict[str, Inbox] = {}
        self._outbox: asyncio.Queue[ToWorker | None] = asyncio.Queue()
        #: Pings since anything was heard: counted, not timed, because an ant that stood still meanwhile asked nobody.
        self._unanswered = 0
        self._is_reading = True
        self._why_gone = "the connection ended"

    @property
    def busy(self) -> int:
        """Returns how many tasks it has."""
        return len(self._tasks)

    @property
    def has_room(self) -> bool:
        """Whether it takes one more task."""
        return not self.is_draining and len(self._tasks) < self.slots

    def takes(self, method: str, tags: tuple[str, ...]) -> bool:
        """Says whether it is one for such tasks, now or later."""
        return not self.is_draining and method in self.offer.methods and set(tags).issubset(self.offer.tags)

    def begin(self, task: Task, inbox: Inbox) -> None:
        """Gives it a task; what it says about it goes to the inbox."""
        self._tasks[task.task] = inbox
        self.tell(task)

    def cancel(self, task: str, reason: Reason, grace_s: float) -> None:
        """Tells it to end a task. The slot stays taken until it says that the task has ended."""
        if task in self._tasks:
            is_late = reason is Reason.TIMED_OUT
            self.tell(Cancel(task=task, reason="timed_out" if is_late else "cancelled", grace_s=grace_s))

    def tell(self, message: ToWorker | None) -> None:
        """Sends a message, or a ping where there is none, as soon as the worker reads."""
        self._outbox.put_nowait(message)
        if self._outbox.qsize() > MAX_UNREAD:
            self.cut_off("it does not read what it is told")

    def cut_off(self, why: str) -> None:
        """Ends the connection without a word."""
        self._why_gone = why
        if self._connection is not None:
            self._connection.abort()

    async def serve(self) -> None:
        """Returns when the connection has ended; all tasks that the worker had are lost then."""
        others = [asyncio.create_task(self._write()), asyncio.create_task(self._beat())]
        try:
            await self._read()
        finally:
            for other in others:
                other.cancel()
            self.is_draining = True
            lost = ExecutorLostError(f"worker {self.name} was lost while it had the task: {self._why_gone}")
            for inbox in self._tasks.values():
                inbox.fail(lost)
            self._tasks.clear()

    async def _read(self) -> None:
        while True:
            frame = await self._socket.receive()
            self._unanswered = 0
            match frame.type:
                case WSMsgType.TEXT:
                    await self._take(frame.data)
                case WSMsgType.BINARY:
                    self._refuse("a binary message; messages are JSON text")
                case WSMsgType.PING:
                    await self._socket.pong(frame.data)
                case WSMsgType.PONG:
                    pass
                case _:
                    if frame.type is WSMsgType.ERROR:
                        self._why_gone = f"the connection broke ({frame.data})"
                    return

    async def _take(self, text: str) -> None:
        try:
            message = decode(text)
        except BadMessageError as exc:
            self._refuse(str(exc))
            return
        match message:
            case Log():
                await self._hand_on(message, len(message.text) + 1)
            case Artifact():
                await self._hand_on(message, len(message.name) + 1)
            case Result():
                self._result(message)
            case Drain():
                self.is_draining = True
                self._freed()
            case Ping():
                self.tell(Pong())
            case Register():
                self.tell(Error(code="already_registered", message="register comes once; connect anew to change it"))

    async def _hand_on(self, message: Log | Artifact, size_bytes: int) -> None:
        inbox = self._tasks.get(message.task)
        if inbox is None:
            self._unknown(message.task)
            return
        self._is_reading = False
        await inbox.put(message, size_bytes)
        self._is_reading = True
        self._unanswered = 0

    def _result(self, message: Result) -> None:
        inbox = self._tasks.pop(message.task, None)
        if inbox is None:
            self._unknown(message.task)
            return
        inbox.end(message)
        self._freed()

    def _unknown(self, task: str) -> None:
        words = "this worker has no such task: it has ended, or never was"
        self.tell(Error(code="unknown_task", message=words, task=task[:500]))

    def _refuse(self, why: str) -> None:
        log.warning("worker_message_refused", worker=self.name, reason=why[:500])
        self.tell(Error(code="bad_message", message=why))

    async def _write(self) -> None:
        try:
            while True:
                message = await self._outbox.get()
                if message is None:
                    await self._socket.ping()
                else:
                    await self._socket.send_str(encode(message))
        except ConnectionError as exc:
            self.cut_off(f"the connection broke ({exc or type(exc).__name__})")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            if self._is_reading and self._unanswered >= _SILENT_BEATS:
                self.cut_off(f"it gave no sign of life for {_SILENT_BEATS * self._heartbeat_s:.0f} s")
                return
            self.tell(None)
            self._unanswered += 1
