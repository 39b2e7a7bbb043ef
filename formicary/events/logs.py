"""Output of tasks on its way to the log writer."""

from datetime import datetime
from typing import Final

import msgspec

from formicary.events.base import Event
from formicary.ids import JobId

#: The stream of lines that no task wrote.
SYSTEM: Final = "system"
_REASON_LIMIT: Final = 500


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line, masked, without its line end; ``seq`` counts from 1 per attempt."""

    seq: int
    stream: str
    at: datetime
    text: str


class LogChunk(Event, frozen=True, kw_only=True, array_like=True, tag="LogChunk"):
    """Ant -> log writer: some lines of one attempt, in order."""

    job_id: JobId
    task_no: int
    attempt: int
    lines: tuple[Line, ...]

    def halves(self) -> "tuple[LogChunk, LogChunk]":
        """Returns the first half of the lines, and the rest."""
        middle = len(self.lines) // 2
        first, rest = self.lines[:middle], self.lines[middle:]
        return msgspec.structs.replace(self, lines=first), msgspec.structs.replace(self, lines=rest)

    def dropped(self, reason: str) -> "LogChunk":
        """Returns, of a chunk of one line, what stands in its place."""
        text = f"1 line was dropped: {reason[:_REASON_LIMIT]}"
        return msgspec.structs.replace(self, lines=(msgspec.structs.replace(self.lines[0], stream=SYSTEM, text=text),))
