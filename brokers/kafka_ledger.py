"""What a group has done of one partition: Kafka itself only stores how far it got without a gap.

The rest travels as metadata of the committed offset, so that what was acknowledged out of order is not handed out
again and rejections are counted across consumers: ``{"d": [[first, last], …], "r": {offset: count}}``, relative to the
offset.
"""

import json
from typing import Final

#: Kafka refuses metadata beyond 4,096 bytes (``offset.metadata.max.bytes``).
METADATA_LIMIT_BYTES: Final = 4000
#: Offsets done beyond a gap from which on it is worth asking whether the gap is still in the log.
MANY: Final = 1000


class Ledger:
    """The offsets of one partition that are done; ``low`` is the first that is not."""

    def __init__(self, low: int, metadata: str = "") -> None:
        self.low = low
        self.rejections: dict[int, int] = {}
        self._done: set[int] = set()
        try:
            found = json.loads(metadata) if metadata else {}
            for first, last in found.get("d", []):
                self._done.update(range(low + first, low + last + 1))
            self.rejections = {low + int(offset): int(count) for offset, count in found.get("r", {}).items()}
        except (ValueError, TypeError, AttributeError):
            self._done.clear()  # written by another program: the offset alone counts

    @property
    def done_count(self) -> int:
        """Returns how many offsets above ``low`` are done."""
        return len(self._done)

    def is_done(self, offset: int) -> bool:
        """Says whether an offset needs no more handling."""
        return offset < self.low or offset in self._done

    def finish(self, offset: int) -> None:
        """Marks an offset as done."""
        self.rejections.pop(offset, None)
        if offset >= self.low:
            self._done.add(offset)
        while self.low in self._done:
            self._done.remove(self.low)
            self.low += 1

    def skip_to(self, offset: int) -> None:
        """Marks everything below as done: it is no longer there."""
        if offset > self.low:
            self.low = offset
            self._done = {done for done in self._done if done >= offset}
            self.rejections = {key: count for key, count in self.rejections.items() if key >= offset}
            while self.low in self._done:
                self._done.remove(self.low)
                self.low += 1

    def metadata(self) -> str:
        """Returns what is to be committed beside ``low``.

        Where it does not fit, the newest gaps are left out: those messages may come again.
        """
        ranges = [[first - self.low, last - self.low] for first, last in self._ranges()]
        counts = {str(offset - self.low): count for offset, count in self.rejections.items()}
        if not ranges and not counts:
            return ""
        while len(text := json.dumps({"d": ranges, "r": counts}, separators=(",", ":"))) > METADATA_LIMIT_BYTES:
            if ranges:
                ranges = ranges[: len(ranges) // 2]
            else:
                counts = dict(list(counts.items())[: len(counts) // 2])
        return text

    def _ranges(self) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for offset in sorted(self._done):
            if ranges and ranges[-1][1] == offset - 1:
                ranges[-1] = (ranges[-1][0], offset)
            else:
                ranges.append((offset, offset))
        return ranges
