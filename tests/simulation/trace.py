"""What happened in a run, line by line: two runs of one seed have the same lines."""

import hashlib

from tests.simulation.loop import VirtualLoop


class Trace:
    """The lines of one run, with their virtual times."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._is_on = True
        self.lines: list[str] = []

    def add(self, what: str) -> None:
        """Notes that something happened."""
        if self._is_on:
            self.lines.append(f"{self._loop.now:10.4f}  {what}")

    def end(self) -> None:
        """Notes nothing any more."""
        self._is_on = False

    def digest(self) -> str:
        """Returns a number for all of it."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]
