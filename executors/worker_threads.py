"""Threads for synchronous functions.

Not ``ThreadPoolExecutor``: its threads are joined when the interpreter ends, so one function that never returns would
keep the ant alive; and each of its calls costs a lock, a condition and a wake-up.
"""

import contextvars
import threading
from queue import SimpleQueue

from executors.calls import Call, Returns


class ThreadWorkers:
    """Daemon threads, made when they are needed, up to a limit. Used from the ant's loop."""

    def __init__(self, limit: int, returns: Returns) -> None:
        self._limit = limit
        self._returns = returns
        self._queue: SimpleQueue[Call | None] = SimpleQueue()
        self._unfinished_count = 0
        self._thread_count = 0

    def submit(self, call: Call) -> None:
        """Runs the call in the next free thread."""
        self._unfinished_count += 1
        self._queue.put(call)
        if self._thread_count < min(self._unfinished_count, self._limit):
            self._thread_count += 1
            threading.Thread(target=self._serve, name=f"formicary-function-{self._thread_count}", daemon=True).start()

    def returned(self) -> None:
        """Says that one submitted call has come back."""
        self._unfinished_count -= 1

    def close(self) -> None:
        """Lets idle threads end; one that runs a function ends with it. Safe twice."""
        for _ in range(self._thread_count):
            self._queue.put(None)
        self._thread_count = 0

    def _serve(self) -> None:
        while (call := self._queue.get()) is not None:
            if call.take_turn():
                contextvars.copy_context().run(call.run)
            self._returns.put(call)
