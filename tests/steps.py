"""Work counted instead of timed: the same on every machine, however slow or busy."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class TooManySteps(BaseException):
    """A call took more steps than it may; nothing that handles errors is to take it for one."""


def steps_of(call: Callable[[], object], most: int = sys.maxsize) -> int:
    """Returns how many lines of Python, calls and returns ``call`` takes, turns of comprehensions among them.

    Work within one call of a function written in C counts as nothing.

    Raises:
        TooManySteps: When it takes more than ``most``; it is not waited for.
    """
    steps = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > most:
            raise TooManySteps(f"more than {most:,} steps")
        return count

    former = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(former)
    return steps
