"""Stands in for an executor whose driver is not installed."""

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink
from executors.errors import ExecutorError, StartFailedError


class MissingExecutor(Executor):
    """Fails its check with what to install, so that an ant does not offer the methods."""

    def __init__(self, methods: tuple[str, ...], module: str, extra: str) -> None:
        self.methods = methods
        self._message = f"{', '.join(methods)} needs {module}: pip install 'formicary[{extra}]'"

    async def check(self) -> None:
        """Says what to install."""
        raise ExecutorError(self._message)

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Says what to install."""
        raise StartFailedError(self._message)

    async def wait(self, run: Run) -> Outcome:
        """Says what to install."""
        raise StartFailedError(self._message)

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Has nothing to stop."""

    async def cleanup(self, run: Run) -> None:
        """Has nothing to let go of."""
