"""WEBSOCKET: the task is done by a worker that connected to this ant.

A lost connection is a lost attempt (``ExecutorLostError``): what the worker did meanwhile is unknown, and whatever it
says about the attempt later is ignored. A worker that ignores a cancel keeps its own slot, not the ant's.
"""

import asyncio
from collections.abc import Callable

import msgspec

from executors.base import Attempt, Exchange, Executor, Offer, Outcome, Reason, Run, Sink, Stream
from executors.ending import Ending, stopped_outcome
from executors.errors import CollectFailedError, ExecutorError, ExecutorLostError, SpecRefusedError, StartFailedError
from executors.options import ExecutorOptions
from executors.output import PIECE_BYTES
from executors.remote_hub import Ticket, WorkerHub
from executors.remote_messages import Artifact, Log, Result, Task, UploadTo
from executors.remote_server import WorkerServer
from executors.specs import WebsocketSpec


class _RemoteRun:
    """State of one attempt."""

    def __init__(self, ticket: Ticket, exchange: Exchange | None) -> None:
        self.ticket = ticket
        self.exchange = exchange
        self.ending = Ending()
        self.stop_reason: Reason | None = None
        self.driver: asyncio.Task[None] | None = None


class WebsocketExecutor(Executor):
    """Hands attempts to remote workers, whose logs and results it takes."""

    methods = ("WEBSOCKET",)
    has_exchange = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._options = options or ExecutorOptions()
        self._hub = WorkerHub()
        self._server: WorkerServer | None = None

    @property
    def port(self) -> int:
        """Returns the port where workers connect, after ``check``."""
        assert self._server is not None
        return self._server.port

    def watch_offers(self, changed: Callable[[tuple[Offer, ...]], None]) -> None:
        """Has ``changed`` told what the connected workers offer."""
        self._hub.on_offers = changed

    async def check(self) -> None:
        """Begins to listen for workers."""
        if self._options.workers_listen is None:
            raise ExecutorError("no address for workers: set FORMICARY_WORKERS_LISTEN, for example to 127.0.0.1:7788")
        if self._server is None:
            server = WorkerServer(self._options, self._hub)
            await server.open()
            self._server = server

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Finds a worker in the background."""
        spec = attempt.spec
        if not isinstance(spec, WebsocketSpec) or not spec.worker_method:
            raise SpecRefusedError("WEBSOCKET needs a worker.method; name what the worker is to do")
        task = Task(
            task=f"{attempt.job_id}/{attempt.task_type}/{attempt.number}",
            job_id=attempt.job_id,
            task_type=attempt.task_type,
            attempt=attempt.number,
            method=spec.worker_method,
            payload=spec.payload,
            timeout_s=attempt.timeout_s,
            inputs=attempt.exchange.inputs if attempt.exchange is not None else (),
        )
        handle = _RemoteRun(Ticket(task, spec.worker_tags), attempt.exchange)
        handle.driver = asyncio.create_task(self._drive(handle, sink))
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns what the worker says."""
        handle: _RemoteRun = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Tells the worker to end the task; after the grace it is over here, whatever the worker does."""
        handle: _RemoteRun | None = run.handle
        if handle is None or handle.ending.is_over:
            return
        handle.stop_reason = handle.stop_reason or reason
        if self._cancel(handle, grace_s):
            await asyncio.wait([asyncio.ensure_future(handle.ending.over())], timeout=grace_s)
        else:
            self._hub.withdraw(handle.ticket)  # now: a worker that has room before the driver ends would be given it
        if handle.driver is not None:
            handle.driver.cancel()
            await asyncio.wait([handle.driver])
        handle.ending.settle(stopped_outcome(handle.stop_reason))  # a driver that never began settles nothing

    async def cleanup(self, run: Run) -> None:
        """Tells the worker to end what still runs."""
        await self.stop(run, 0, Reason.CANCELLED)

    async def close(self) -> None:
        """Sends all workers away."""
        if self._server is not None:
            await self._server.close()
            self._server = None

    def _cancel(self, run: _RemoteRun, grace_s: float) -> bool:
        """Says whether a worker has the task, and has been told."""
        worker = run.ticket.worker
        if worker is None:
            return False
        worker.cancel(run.ticket.task.task, run.stop_reason or Reason.CANCELLED, grace_s)
        return True

    async def _drive(self, run: _RemoteRun, sink: Sink) -> None:
        try:
            outcome = await self._work(run.ticket, run.exchange, sink)
            run.ending.settle(outcome if run.stop_reason is None else stopped_outcome(run.stop_reason))
        except asyncio.CancelledError:
            run.ending.settle(stopped_outcome(run.stop_reason or Reason.CANCELLED, _where(run.ticket)))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            self._cancel(run, 0)
            if run.stop_reason is not None and isinstance(exc, ExecutorError):
                run.ending.settle(stopped_outcome(run.stop_reason, f"the task was stopped, and {exc}"))
            run.ending.fail(exc)
        finally:
            self._hub.withdraw(run.ticket)
            run.ticket.inbox.close()

    async def _work(self, ticket: Ticket, exchange: Exchange | None, sink: Sink) -> Outcome:
        self._hub.ask(ticket)
        if ticket.worker is None:
            await _note(sink, f"waiting: {self._hub.explain(ticket)}")
            await self._taken(ticket)
        who = f"worker {ticket.worker.name}" if ticket.worker is not None else "the worker"
        await _note(sink, f"{who} has the task")
        try:
            return (await self._listen(ticket, exchange, sink)).outcome(who)
        except ExecutorLostError as exc:
            await _note(sink, str(exc))
            raise

    @staticmethod
    async def _listen(ticket: Ticket, exchange: Exchange | None, sink: Sink) -> Result:
        while True:
            match await ticket.inbox.get():
                case Log() as message:
                    await _say(sink, message)
                case Artifact() as artifact:
                    answer = await _offered(artifact, exchange)
                    if ticket.worker is not None:
                        ticket.worker.tell(answer)
                case Result() as result:
                    return result

    async def _taken(self, ticket: Ticket) -> None:
        """Returns when a worker has the task.

        Raises:
            StartFailedError: for too long nobody was there to take it.
        """
        patience_s, loop = self._options.workers_patience_s, asyncio.get_running_loop()
        while ticket.worker is None:
            since = ticket.lonely_since
            ticket.changed.clear()
            try:
                async with asyncio.timeout_at(None if since is None else since + patience_s):
                    await ticket.changed.wait()
            except TimeoutError:
                if since is not None and loop.time() >= since + patience_s:
                    raise StartFailedError(f"{self._hub.explain(ticket)}, for {patience_s:g} s") from None


def _where(ticket: Ticket) -> str | None:
    return "the task was stopped while it waited for a worker" if ticket.worker is None else None


async def _say(sink: Sink, message: Log) -> None:
    data = message.text.encode(errors="replace")
    if not data.endswith(b"\n"):
        data += b"\n"
    for start in range(0, len(data), PIECE_BYTES):
        await sink.write(Stream(message.stream), data[start : start + PIECE_BYTES])


async def _offered(artifact: Artifact, exchange: Exchange | None) -> UploadTo:
    answer = UploadTo(task=artifact.task, name=artifact.name)
    if exchange is None:
        return msgspec.structs.replace(answer, refusal="there is no artifact store")
    try:
        upload = await exchange.offer(
            artifact.name, artifact.sha256, artifact.size_bytes, is_executable=artifact.is_executable
        )
    except CollectFailedError as exc:
        return msgspec.structs.replace(answer, refusal=str(exc))
    return msgspec.structs.replace(answer, url=upload.url, headers=upload.headers)


async def _note(sink: Sink, line: str) -> None:
    await sink.write(Stream.SYSTEM, line.encode(errors="replace") + b"\n")
