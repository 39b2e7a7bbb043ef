"""Worker processes for functions that ask for one (``in_process_pool``): killable, and not bound by the ant's GIL.

A worker is a fresh interpreter, never a fork of a process with threads. It serves one call at a time and is used again,
unless it was stopped. Before each call the attempt's warden has promised to kill it; when the ant dies, an idle one
sees the end of its socket and leaves.
"""

import asyncio
import json
import socket
import subprocess
import sys

import msgspec

from executors.base import Attempt, Outcome, Reason, Sink
from executors.ending import Ending, stopped_outcome
from executors.errors import SpecRefusedError, StartFailedError
from executors.process import Child
from executors.process_worker import HEADER_BYTES, Answer, CallFrame, OutcomeFrame, OutputFrame, body_size, pack
from executors.specs import PythonSpec

_MAIN = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from executors.process_worker import main; main()"
_decoder: "msgspec.msgpack.Decoder[Answer]" = msgspec.msgpack.Decoder(Answer)


class _Worker:
    """One process and the socket to it."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.child = child
        self._reader = reader
        self._writer = writer

    async def call(self, spec: PythonSpec, sink: Sink) -> Outcome:
        """Returns the outcome after all output has gone to the sink.

        Raises:
            SpecRefusedError: the function cannot be resolved.
        """
        self._writer.write(pack(CallFrame(spec.function, spec.args, spec.kwargs)))
        while isinstance(answer := await self._receive(), OutputFrame):
            await sink.write(answer.stream, answer.data)
        if answer is None:
            return _outcome_of_death(await self.child.exited())
        if isinstance(answer, OutcomeFrame):
            return answer.outcome
        raise SpecRefusedError(answer.message)

    async def end(self) -> None:
        """Kills the process, its group with it."""
        self._writer.close()
        self.child.end(0)
        await self.child.exited()
        await self.child.group_gone(0)

    async def _receive(self) -> Answer | None:
        """Returns the next answer, or None where the process is gone."""
        try:
            size = body_size(await self._reader.readexactly(HEADER_BYTES))
            return _decoder.decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


class PoolCall:
    """A call that runs in a worker process."""

    def __init__(self, attempt: Attempt, spec: PythonSpec, sink: Sink) -> None:
        self.attempt = attempt
        self.spec = spec
        self.sink = sink
        self.ending = Ending()
        self.stop_reason: Reason | None = None
        self.worker: _Worker | None = None
        self.driver: asyncio.Task[None] | None = None


class ProcessWorkers:
    """The pool; used from the ant's loop."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)
        self._idle: list[_Worker] = []

    def submit(self, call: PoolCall) -> None:
        """Runs the call as soon as a worker is free."""
        call.driver = asyncio.create_task(self._drive(call))

    async def stop(self, call: PoolCall, grace_s: float, reason: Reason) -> None:
        """Ends the worker that runs the call, or the call that waits for one."""
        if call.ending.is_over:
            return
        call.stop_reason = call.stop_reason or reason
        if call.worker is not None:
            call.worker.child.end(grace_s)
        elif call.driver is not None:
            call.driver.cancel()
            await asyncio.wait([call.driver])
            call.ending.settle(stopped_outcome(call.stop_reason))  # a driver that never began settles nothing
        await call.ending.over()

    async def close(self) -> None:
        """Ends the idle workers. Safe twice."""
        idle, self._idle = self._idle, []
        for worker in idle:
            await worker.end()

    async def _drive(self, call: PoolCall) -> None:
        try:
            async with self._places:
                outcome = await self._run(call)
        except asyncio.CancelledError:
            call.ending.settle(stopped_outcome(call.stop_reason or Reason.CANCELLED))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            call.ending.fail(exc)
        else:
            call.ending.settle(outcome if call.stop_reason is None else stopped_outcome(call.stop_reason))

    async def _run(self, call: PoolCall) -> Outcome:
        worker = await self._free_worker()
        call.worker = worker
        guard = call.attempt.guard
        is_reusable = False
        try:
            await guard.register(worker.child.pid)
            outcome = await worker.call(call.spec, call.sink)
            is_reusable = outcome.reason is Reason.EXITED and not worker.child.has_exited
        finally:
            if is_reusable and not worker.child.is_told_to_end:
                self._idle.append(worker)
            else:
                await asyncio.shield(worker.end())
            await guard.forget(worker.child.pid)
        return outcome

    async def _free_worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if not worker.child.has_exited:
                return worker
            await worker.end()
        return await _spawn()


async def _spawn() -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:
        process = _popen(theirs, ours)
    reader, writer = await asyncio.open_connection(sock=ours)
    return _Worker(Child(process), reader, writer)


def _popen(theirs: socket.socket, ours: socket.socket) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _MAIN, json.dumps(sys.path)]
    try:
        # What it prints below Python's level goes where the ant's errors go, never into the ant's own output.
        return subprocess.Popen(argv, stdin=theirs.fileno(), stdout=2, start_new_session=True)
    except OSError as exc:
        ours.close()
        raise StartFailedError(f"cannot start a worker process: {exc.strerror}") from exc


def _outcome_of_death(code: int) -> Outcome:
    if code >= 0:
        return Outcome(Reason.EXITED, code or 1, False, message=f"the function ended its process with exit code {code}")
    message = f"signal {-code} ended the process of the function"
    return Outcome(Reason.SIGNALLED, 128 - code, False, message=message)
