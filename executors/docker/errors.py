"""How calls of an engine fail.

EngineError
├── EngineLostError       it cannot be reached, or did not answer in time
└── EngineRefusedError    it answered that it will not
"""

from executors.errors import ExecutorError, ExecutorLostError


class EngineError(ExecutorError):
    """A call of the engine failed."""


class EngineLostError(EngineError, ExecutorLostError):
    """The engine cannot be reached: what became of the call, and of what runs there, is unknown."""

    def __init__(self, url: str, doing: str, reason: str) -> None:
        super().__init__(f"the engine at {url} was lost while {doing}: {reason}")


class EngineRefusedError(EngineError):
    """The engine refused a call; ``status`` is that of HTTP."""

    def __init__(self, doing: str, status: int, reason: str) -> None:
        super().__init__(f"the engine refused {doing}: {reason}")
        self.status = status
        self.reason = reason
