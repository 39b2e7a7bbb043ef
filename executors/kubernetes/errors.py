"""What a cluster can answer that is no success.

ExecutorError
├── ApiRefusedError       the API server said no; ``status`` and ``reason`` say how
└── ApiUnreachableError   no answer: nobody knows whether the request was carried out
"""

from typing import Any

from executors.errors import ExecutorError


class ApiRefusedError(ExecutorError):
    """The API server refused a request. ``reason`` is its word for it, such as ``AlreadyExists``."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"the cluster refused it ({status} {reason}): {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @classmethod
    def of(cls, status: int, body: Any) -> "ApiRefusedError":
        """Returns the error for an answer: a Status object, or whatever a proxy between put there."""
        known = body if isinstance(body, dict) else {}
        return cls(status, str(known.get("reason") or "no reason given"), str(known.get("message") or body))

    @property
    def is_worth_retrying(self) -> bool:
        """Whether the same request may succeed later: the server is busy, starting or going."""
        return self.status == 429 or self.status >= 500

    @property
    def is_about_rights(self) -> bool:
        """Whether the account may not do it, which a server that has just started says of everybody for a while."""
        return self.status in {401, 403}

    @property
    def is_expired(self) -> bool:
        """Whether the version that a watch asked for is too old: list again."""
        return self.status == 410


class ApiUnreachableError(ExecutorError):
    """The API server gave no answer, or half of one."""
