"""How a task ended, as a program elsewhere says it: the same words for remote workers and services on the broker."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from executors.base import Outcome, Reason

Json = Any  # a JSON value

_Code = Annotated[int, Meta(ge=0, le=999_999_999)]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a task ended, as whoever ran it says.

    Attributes:
        status: ``COMPLETED`` or ``FAILED``.
        exit_code: What ``on_exit_code`` looks at; left out: 0 for COMPLETED, 1 for FAILED.
        outputs: The task's outputs, any JSON by name.
        message: Why, in one sentence.
    """

    status: Literal["COMPLETED", "FAILED"]
    exit_code: _Code | None = None
    outputs: dict[str, Json] = {}
    message: Annotated[str, Meta(max_length=10_000)] | None = None

    def __post_init__(self) -> None:
        if self.status == "FAILED" and self.exit_code == 0:
            raise ValueError("FAILED has no exit_code 0: leave it out, or say what it is")

    def outcome(self, who: str) -> Outcome:
        """Returns the verdict as an outcome; ``who`` gave it."""
        is_success = self.status == "COMPLETED"
        code = self.exit_code if self.exit_code is not None else int(not is_success)
        message = self.message or (None if is_success else f"{who} says FAILED with exit code {code}")
        return Outcome(Reason.EXITED, code, is_success, self.outputs, message)
