"""What one rendering may use up. A step is at most some ten microseconds of work, so all steps end in a blink."""

from collections.abc import Mapping, Sized
from typing import Any

from formicary.template.errors import LimitExceededError

Value = Any  # whatever a template handles

#: Steps of one rendering: turns of loops, items that filters go through, pieces of 128 characters.
MAX_STEPS = 20_000
#: Characters of one rendered task, and of any text that comes up on the way.
MAX_CHARS = 512 * 1024
#: Characters that count as one step.
_CHARS_A_STEP = 128


class Budget:
    """Counts down; shared by all strings of one task. Raises ``LimitExceededError`` when used up."""

    __slots__ = ("chars", "max_chars", "max_steps", "steps")

    def __init__(self, max_steps: int = MAX_STEPS, max_chars: int = MAX_CHARS) -> None:
        self.max_steps = max_steps
        self.max_chars = max_chars
        self.steps = max_steps
        self.chars = max_chars

    def spend(self, steps: int) -> None:
        """Takes steps."""
        self.steps -= steps
        if self.steps < 0:
            raise LimitExceededError(f"the template takes more than {self.max_steps:,} steps")

    def write(self, chars: int) -> None:
        """Takes characters of output."""
        self.chars -= chars
        if self.chars < 0:
            raise LimitExceededError(f"the rendered text has more than {self.max_chars:,} characters")

    def spend_text(self, chars: int) -> None:
        """Takes the steps that handling a text costs; one that is longer than any output may be is refused."""
        if chars > self.max_chars:
            raise LimitExceededError(f"a text of {chars:,} characters; at most {self.max_chars:,} are made")
        self.spend(1 + chars // _CHARS_A_STEP)

    def spend_value(self, value: Value) -> None:
        """Takes the steps that going through a value once costs."""
        if isinstance(value, str):
            self.spend_text(len(value))
        elif isinstance(value, Mapping | list | tuple):
            self.spend(1 + len(value))
            for each in value.values() if isinstance(value, Mapping) else value:
                if isinstance(each, str | Mapping | list | tuple):
                    self.spend_value(each)
        elif isinstance(value, range):
            self.spend(_length(value))
        else:
            self.spend(1)


def _length(value: Sized) -> int:
    try:
        return len(value)
    except OverflowError:
        raise LimitExceededError("the range is too long") from None
