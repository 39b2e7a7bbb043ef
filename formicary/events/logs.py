"""Output of tasks on its way to the log writer."""

from datetime import datetime

import msgspec

from formicary.events.base import Event
from formicary.ids import JobId


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
