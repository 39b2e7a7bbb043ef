"""PYTHON: calls of importable functions, without a process per task.

Asynchronous functions share the loop of one thread; synchronous ones get a thread each, or a worker process if they ask
for it. No user code runs in the ant's loop, importing included. A call that does nothing costs the ant's loop some
microseconds: calls travel to the threads and back in batches, and a run that prints nothing has no tasks, locks or
queues of its own in the ant.
"""

import asyncio
import functools
import threading

from executors import capture
from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink
from executors.calls import Call, Returns
from executors.ending import stopped_outcome
from executors.errors import SpecRefusedError
from executors.functions import Function, add_python_paths, check_shape, resolve
from executors.options import ExecutorOptions
from executors.specs import PythonSpec
from executors.worker_loop import AsyncWorker
from executors.worker_processes import PoolCall, ProcessWorkers
from executors.worker_threads import ThreadWorkers


class PythonExecutor(Executor):
    """Calls functions; an exception is exit code 1, ``sys.exit`` is honoured, the result is ``outputs.result``.

    A function in a thread cannot be killed: after the grace of ``stop`` its run ends all the same and its outcome says
    so, but it holds its thread until it returns; ``released`` tells when. A pooled function is resolved by its worker,
    so a wrong name raises ``SpecRefusedError`` from ``wait`` instead of ``start``.
    """

    methods = ("PYTHON",)
    is_in_process = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._options = options or ExecutorOptions()
        self._functions: dict[str, Function] = {}
        self._resolving: dict[str, asyncio.Future[Function]] = {}
        self._async_worker: AsyncWorker | None = None
        self._threads: ThreadWorkers | None = None
        self._processes: ProcessWorkers | None = None
        self._returns: Returns | None = None

    async def check(self) -> None:
        """Puts the folders of functions on the path."""
        add_python_paths(self._options.python_paths)

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Resolves the function, in a thread the first time, and hands the call over."""
        spec = attempt.spec
        if not isinstance(spec, PythonSpec):
            raise SpecRefusedError(f"PYTHON needs a PythonSpec, not {type(spec).__name__}")
        if spec.in_process_pool:
            return Run(attempt, sink, self._start_in_pool(attempt, spec, sink))
        function = self._functions.get(spec.function)
        if function is None:
            function = await self._resolve(spec.function)
        call = Call(function, spec.args, spec.kwargs, sink)
        if function.is_async:
            self._open_async_worker().submit(call)
        else:
            self._open_threads().submit(call)
        return Run(attempt, sink, call)

    async def wait(self, run: Run) -> Outcome:
        """Returns the result, or the exception, as an outcome."""
        handle: Call | PoolCall = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Cancels the function, or takes its turn from it, or kills its process; gives up after the grace."""
        handle: Call | PoolCall | None = run.handle
        if handle is None or handle.ending.is_over:
            return
        if isinstance(handle, PoolCall):
            await self._open_processes().stop(handle, grace_s, reason)
        elif handle.function.is_async:
            await self._stop_async(handle, grace_s, reason)
        else:
            await self._stop_sync(handle, grace_s, reason)

    async def released(self, run: Run) -> None:
        """Returns when the function has left its thread."""
        handle: Call | PoolCall | None = run.handle
        if isinstance(handle, Call):
            await handle.returned.over()

    async def cleanup(self, run: Run) -> None:
        """Stops what still runs."""
        handle: Call | PoolCall | None = run.handle
        if handle is not None and not handle.ending.is_over:
            await self.stop(run, 0, Reason.CANCELLED)

    async def close(self) -> None:
        """Ends the threads and processes, except those that a function holds."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        if self._processes is not None:
            await self._processes.close()
            self._processes = None
        if self._async_worker is not None:
            worker, self._async_worker = self._async_worker, None
            await asyncio.to_thread(worker.close)
        if self._returns is not None:
            self._returns = None
            capture.uninstall()

    async def _stop_async(self, call: Call, grace_s: float, reason: Reason) -> None:
        if call.stop_reason is None:
            call.stop_reason = reason
            if self._async_worker is not None:
                self._async_worker.cancel(call)
        if await _ends_within(call, max(grace_s, 0.05)):
            return
        why = "ignored its cancellation and still runs" if call.is_begun else "waits behind one that blocks their loop"
        call.abandon(f"{stopped_outcome(reason).message}, but the function {why}; blocking ones must be plain `def`")

    async def _stop_sync(self, call: Call, grace_s: float, reason: Reason) -> None:
        call.stop_reason = call.stop_reason or reason
        if call.take_turn():
            call.ending.settle(stopped_outcome(call.stop_reason))
            return
        if not await _ends_within(call, grace_s):
            call.abandon(
                "the function ignored its timeout and still holds its thread; in_process_pool makes it killable"
            )

    async def _resolve(self, reference: str) -> Function:
        """Imports in a thread; callers that come meanwhile share it, a failed one is tried again by the next."""
        check_shape(reference)
        future = self._resolving.get(reference)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._resolving[reference] = future
            future.add_done_callback(functools.partial(self._resolved, reference))
            work = functools.partial(_resolve_aside, reference, future, asyncio.get_running_loop())
            # A thread of its own: an import that never ends must not take the place of a function.
            threading.Thread(target=work, name="formicary-import", daemon=True).start()
        return await asyncio.shield(future)

    def _resolved(self, reference: str, future: "asyncio.Future[Function]") -> None:
        del self._resolving[reference]
        if future.exception() is None:
            self._functions[reference] = future.result()

    def _start_in_pool(self, attempt: Attempt, spec: PythonSpec, sink: Sink) -> PoolCall:
        check_shape(spec.function)
        call = PoolCall(attempt, spec, sink)
        self._open_processes().submit(call)
        return call

    def _open_returns(self) -> Returns:
        if self._returns is None:
            add_python_paths(self._options.python_paths)
            capture.install()
            self._returns = Returns(asyncio.get_running_loop(), self._on_return)
        return self._returns

    def _open_async_worker(self) -> AsyncWorker:
        if self._async_worker is None:
            self._async_worker = AsyncWorker(asyncio.get_running_loop(), self._open_returns())
        return self._async_worker

    def _open_threads(self) -> ThreadWorkers:
        if self._threads is None:
            self._threads = ThreadWorkers(self._options.python_threads, self._open_returns())
        return self._threads

    def _open_processes(self) -> ProcessWorkers:
        if self._processes is None:
            add_python_paths(self._options.python_paths)
            self._processes = ProcessWorkers(self._options.python_processes)
        return self._processes

    def _on_return(self, call: Call) -> None:
        if self._threads is not None and not call.function.is_async:
            self._threads.returned()
        call.finish()


async def _ends_within(call: Call, grace_s: float) -> bool:
    try:
        async with asyncio.timeout(grace_s):
            await call.ending.over()
    except TimeoutError:
        return False
    return True


def _resolve_aside(reference: str, future: "asyncio.Future[Function]", loop: asyncio.AbstractEventLoop) -> None:
    try:
        function = resolve(reference)
    except BaseException as exc:  # noqa: BLE001 - carried to whoever waits in the ant's loop
        loop.call_soon_threadsafe(future.set_exception, exc)
    else:
        loop.call_soon_threadsafe(future.set_result, function)
