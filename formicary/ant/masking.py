"""Masking of secrets in a stream of bytes, whatever its chunks.

The rule: every byte that belongs to any occurrence of any secret is masked, and each maximal run of masked bytes is
replaced by one ``MASK``. So the result does not depend on where the stream was cut. A suffix that may be the
beginning of a secret is held back until more comes or the stream ends.
"""

import re
from collections.abc import Iterable
from typing import Final

#: What stands in the place of a secret.
MASK: Final = b"[MASKED]"
#: Lines of a secret of several lines are masked on their own from this length on.
_MIN_LINE_CHARS: Final = 8


def secret_bytes(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Returns what to look for: each secret, without the white space around it, and its longer lines."""
    found: set[bytes] = set()
    for secret in secrets:
        whole = secret.strip()
        lines = [line.strip() for line in whole.splitlines() if len(line.strip()) >= _MIN_LINE_CHARS]
        found.update(text.encode("utf-8", "surrogatepass").replace(b"\0", b"") for text in (whole, *lines))
    return tuple(sorted((item for item in found if item), key=len, reverse=True))


class Masker:
    """Masks one stream; without secrets it passes everything on at once."""

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        self._longest = max(map(len, secrets), default=0)
        self._held = b""
        #: The last byte that was passed on was masked, and so are this many of the held ones; None: it was not.
        self._covered: int | None = None
        # A lookahead finds overlapping occurrences; the longest secret is tried first at each place.
        self._pattern = re.compile(b"(?=(" + b"|".join(map(re.escape, secrets)) + b"))") if secrets else None
        self._starts = re.compile(b"[" + b"".join(re.escape(item[:1]) for item in secrets) + b"]") if secrets else None

    def feed(self, data: bytes) -> bytes:
        """Returns what is certain so far."""
        if self._pattern is None:
            return data
        buffer = self._held + data
        return self._pass(buffer, self._certain(buffer))

    def finish(self) -> bytes:
        """Returns what was held back; the stream is over."""
        return self._pass(self._held, len(self._held)) if self._held else b""

    def _certain(self, buffer: bytes) -> int:
        """Returns the length of the part that no occurrence still to come can reach into."""
        if self._starts is None:
            return len(buffer)
        first = max(0, len(buffer) - self._longest + 1)
        for match in self._starts.finditer(buffer, first):
            tail = buffer[match.start() :]
            if any(len(secret) > len(tail) and secret.startswith(tail) for secret in self._secrets):
                return match.start()
        return len(buffer)

    def _pass(self, buffer: bytes, certain: int) -> bytes:
        """Holds back what is uncertain and returns the rest, masked."""
        is_open = self._covered is not None
        runs = self._runs(buffer)
        parts: list[bytes] = []
        at, self._covered = 0, None
        for start, end in runs:
            is_continued = is_open and start == 0
            if start >= certain and not is_continued:
                break
            parts.append(buffer[at:start] if is_continued else buffer[at:start] + MASK)
            at = min(end, certain)
            self._covered = end - certain if end >= certain else None
        parts.append(buffer[at:certain])
        self._held = buffer[certain:]
        return b"".join(parts)

    def _runs(self, buffer: bytes) -> list[tuple[int, int]]:
        """Returns the maximal masked runs; the first begins at 0, maybe empty, where the byte before was masked."""
        runs = [] if self._covered is None else [(0, self._covered)]
        if self._pattern is None or not any(secret in buffer for secret in self._secrets):
            return runs
        for match in self._pattern.finditer(buffer):
            start, end = match.span(1)
            if runs and start <= runs[-1][1]:
                runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
            else:
                runs.append((start, end))
        return runs


def mask_text(text: str, secrets: Iterable[str]) -> str:
    """Returns a text with its secrets masked."""
    masker = Masker(secret_bytes(secrets))
    whole = masker.feed(text.encode("utf-8", "replace")) + masker.finish()
    return whole.decode("utf-8", "replace")
