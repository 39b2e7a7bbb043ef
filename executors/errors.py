"""What an executor can fail with; a task that fails is an ``Outcome``, never one of these.

ExecutorError
├── SpecRefusedError        this spec can never run here (the attempt fails, ``ERR_VALIDATION``)
├── StartFailedError        the run could not be started (``ERR_EXECUTOR``; retries apply)
│   ├── ImageError          its image cannot be had or run (``ERR_IMAGE``; retries apply)
│   ├── ServiceError        a service beside it did not get ready (``ERR_SERVICE``; retries apply)
│   ├── UnschedulableError  no machine takes it (``ERR_UNSCHEDULABLE``; retries apply)
│   └── InputMissingError   an artifact that it needs cannot be had (``ERR_ARTIFACT``; retries apply)
├── ExecutorLostError       the run's fate is unknown (``ERR_EXECUTOR``; retries apply)
│   └── EvictedError        it was taken from where it ran (``ERR_EVICTED``; retries apply)
├── CollectFailedError      what the run left cannot be had (``ERR_ARTIFACT``; retries apply)
└── UnknownMethodError      no executor for this method here
"""


class ExecutorError(Exception):
    """Root of the executors' errors; ``code`` is the error code of an attempt that ends by one."""

    code = "ERR_EXECUTOR"


class SpecRefusedError(ExecutorError):
    """The spec asks for something that this executor never does."""

    code = "ERR_VALIDATION"


class StartFailedError(ExecutorError):
    """The run could not be started; nothing of it is left."""


class ImageError(StartFailedError):
    """The image cannot be pulled, is not there, or holds nothing that could be run."""

    code = "ERR_IMAGE"


class ServiceError(StartFailedError):
    """A service beside the task did not start or did not get ready."""

    code = "ERR_SERVICE"


class UnschedulableError(StartFailedError):
    """No machine has room for the run, or is one that it may run on."""

    code = "ERR_UNSCHEDULABLE"


class InputMissingError(StartFailedError):
    """An artifact of an earlier task cannot be had."""

    code = "ERR_ARTIFACT"


class ExecutorLostError(ExecutorError):
    """The connection to what runs the task was lost."""


class EvictedError(ExecutorLostError):
    """The run was taken from the machine it ran on, by none of its own doing."""

    code = "ERR_EVICTED"


class CollectFailedError(ExecutorError):
    """What the run left behind could not be brought back."""

    code = "ERR_ARTIFACT"


class UnknownMethodError(ExecutorError):
    """No executor serves this method."""

    def __init__(self, method: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no executor for method {method}; this ant offers {', '.join(known) or 'none'}")
        self.method = method
