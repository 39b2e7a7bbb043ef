"""Durations as people write them: ``1h30m``, ``PT5M``; sizes are in ``executors.quantities``."""

import re

from executors.quantities import parse_size

__all__ = ["DURATION_PATTERN", "MAX_DURATION_S", "parse_duration", "parse_size"]

#: The longest duration that is accepted, in seconds (ten years): timers and database intervals stay in range.
MAX_DURATION_S = 10 * 366 * 86400.0

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_ISO = re.compile(
    r"P(?:(\d{1,9}(?:\.\d{1,9})?)W)?(?:(\d{1,9}(?:\.\d{1,9})?)D)?"
    r"(?:T(?:(\d{1,9}(?:\.\d{1,9})?)H)?(?:(\d{1,9}(?:\.\d{1,9})?)M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?"
)
_ISO_S = (7 * 86400.0, 86400.0, 3600.0, 60.0, 1.0)

#: What a duration looks like, for schemas and editors.
DURATION_PATTERN = r"^((\d+(\.\d+)?(ms|s|m|h|d))+|0|P(?=.)[0-9.WDTHMS]+)$"


def parse_duration(text: str) -> float:
    """Returns the seconds of ``500ms``, ``30s``, ``1h30m``, ``7d`` or an ISO 8601 duration such as ``PT5M``.

    Raises:
        ValueError: it is none, or longer than ten years; the text says what would be right.
    """
    if text == "0":
        return 0.0
    seconds = _iso_seconds(text) if text.startswith("P") else _unit_seconds(text)
    if seconds is None:
        raise ValueError(f'"{text[:40]}" is no duration; write it like 500ms, 30s, 5m, 1h30m, 7d or PT5M')
    if seconds > MAX_DURATION_S:
        raise ValueError(f'"{text[:40]}" is longer than ten years')
    return seconds


def _unit_seconds(text: str) -> float | None:
    total, end, former_s = 0.0, 0, float("inf")
    for part in _PART.finditer(text):
        unit_s = _UNIT_S[part[2]]
        if part.start() != end or unit_s >= former_s:
            return None
        total, end, former_s = total + float(part[1]) * unit_s, part.end(), unit_s
    return total if end and end == len(text) else None


def _iso_seconds(text: str) -> float | None:
    match = _ISO.fullmatch(text)
    if match is None or text.endswith(("P", "T")):
        return None
    return sum(float(part) * unit_s for part, unit_s in zip(match.groups(), _ISO_S, strict=True) if part)
