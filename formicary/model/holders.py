"""Who may need a stored content: what the artifact store's names and the database's rows have in common."""

from typing import NamedTuple


class Holder(NamedTuple):
    """An attempt, as names in the artifact store spell it."""

    job_id: str
    task_no: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.job_id}.{self.task_no}.{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> "Holder":
        """Returns the holder that a text spells."""
        job_id, task_no, attempt = text.rsplit(".", 2)
        return cls(job_id, int(task_no), int(attempt))


class Uses(NamedTuple):
    """What the database said at one moment: contents that rows refer to, and attempts that may still report."""

    referenced: frozenset[str]
    reporting: frozenset[Holder]
