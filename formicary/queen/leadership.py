"""What services of the leading queen ask before they do what is done once in a colony."""

from typing import Protocol


class Leadership(Protocol):
    """Who leads the colony."""

    def leader_epoch(self) -> int | None:
        """Returns the epoch in which this queen leads; None where another does."""
        ...
