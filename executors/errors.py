"""What an executor can fail with; a task that fails is an ``Outcome``, never one of these.

ExecutorError
├── SpecRefusedError        this spec can never run here (the attempt fails, ``ERR_VALIDATION``)
├── StartFailedError        the run could not be started (``ERR_EXECUTOR``; retries apply)
├── ExecutorLostError       the run's fate is unknown (``ERR_EXECUTOR``; retries apply)
└── UnknownMethodError      no executor for this method here
"""


class ExecutorError(Exception):
    """Root of the executors' errors."""


class SpecRefusedError(ExecutorError):
    """The spec asks for something that this executor never does."""


class StartFailedError(ExecutorError):
    """The run could not be started; nothing of it is left."""


class ExecutorLostError(ExecutorError):
    """The connection to what runs the task was lost."""


class UnknownMethodError(ExecutorError):
    """No executor serves this method."""

    def __init__(self, method: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no executor for method {method}; this ant offers {', '.join(known) or 'none'}")
        self.method = method
