"""Figures and how they are shown."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One measured number; ``goal`` is a floor unless ``is_ceiling``."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    is_ceiling: bool = False
    note: str = ""

    @property
    def is_reached(self) -> bool | None:
        """Says whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.is_ceiling else self.value >= self.goal


def table(figures: list[Figure]) -> str:
    """Returns the figures as aligned text."""
    rows = [(one.name, f"{one.value:,.4g} {one.unit}".strip(), _goal(one), one.note) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign = "<=" if figure.is_ceiling else ">="
    return f"{'ok  ' if figure.is_reached else 'MISS'} {sign} {figure.goal:,g}"
