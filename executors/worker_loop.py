"""The thread whose event loop runs all asynchronous functions, fed in batches."""

import asyncio
import contextlib
import threading

from executors.calls import Call, Returns


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class AsyncWorker:
    """Runs asynchronous functions beside the ant's loop, each as a plain task.

    A plain task each, although stepping a coroutine once by hand would be cheaper: outside of a task
    ``asyncio.timeout``, ``current_task`` and whatever builds on them fail.
    """

    def __init__(self, home: asyncio.AbstractEventLoop, returns: Returns) -> None:
        self._home = home
        self._returns = returns
        self._loop = _new_loop()
        self._pending: list[Call] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="formicary-functions", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        """Hands over a call; those of one iteration of the ant's loop leave together."""
        self._pending.append(call)
        if len(self._pending) == 1:
            self._home.call_soon(self._flush)

    def cancel(self, call: Call) -> None:
        """Cancels the function where it awaits."""
        self._loop.call_soon_threadsafe(self._cancel, call)

    def close(self) -> None:
        """Ends the loop and its thread; a function that blocks the loop is left behind. Safe twice."""
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=1.0)

    def _flush(self) -> None:
        batch, self._pending = self._pending, []
        self._loop.call_soon_threadsafe(self._accept, batch)

    def _accept(self, batch: list[Call]) -> None:
        create_task = self._loop.create_task
        for call in batch:
            call.task = create_task(self._drive(call))

    async def _drive(self, call: Call) -> None:
        try:
            if not call.is_dropped:
                await call.run_async()
        finally:
            call.task = None
            self._returns.put(call)

    @staticmethod
    def _cancel(call: Call) -> None:
        if call.task is not None and call.is_begun:
            call.task.cancel()
        else:
            call.is_dropped = True  # cancelling a task before its first step would leave it without an end

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._is_closing:
            # A function's own task may raise SystemExit through the loop; the others go on.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()
        self._end_tasks()
        self._loop.close()

    def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=0.5) if tasks else asyncio.sleep(0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
