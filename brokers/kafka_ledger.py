"""What a group has done of one partition: Kafka itself only stores how far it got without a gap.

The rest travels as metadata of the committed offset, so that what was acknowledged out of order is not handed out
again and rejections are counted across consumers: ``{"l": log, "d": [[first, last], …], "r": {offset: count}}``,
relative to the offset. In memory it is kept as ranges too: one message that is held for long costs no more than that
however much is done behind it.

The log is named because Kafka takes a commit by the topic's name alone: one that comes after the topic was deleted
stands for the log made anew in its place, of which nothing is done.
"""

import json
from bisect import bisect_right
from typing import Any, Final

#: Kafka refuses metadata beyond 4,096 bytes (``offset.metadata.max.bytes``).
METADATA_LIMIT_BYTES: Final = 4000
#: Offsets done beyond a gap from which on it is worth asking whether the gap is still in the log.
MANY: Final = 1000


class Ledger:
    """The offsets of one partition that are done; ``low`` is the first that is not.

    Args:
        low: where it begins.
        metadata: what was committed beside it.
        log_id: of which log this is; as the metadata says, where nothing is given.
    """

    def __init__(self, low: int, metadata: str = "", log_id: str = "") -> None:
        self.low = low
        self.log_id = log_id
        self.rejections: dict[int, int] = {}
        #: How many offsets above ``low`` are done.
        self.done_count = 0
        #: First and last offsets of what is done above ``low``: sorted, and never adjacent.
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        try:
            found = json.loads(metadata) if metadata else {}
            ranges = [(int(first), int(last)) for first, last in found.get("d", [])]
            self.rejections = {low + int(offset): int(count) for offset, count in found.get("r", {}).items()}
            self.log_id = log_id or str(found.get("l", ""))
        except (ValueError, TypeError, AttributeError):
            return  # written by another program: the offset alone counts
        for first, last in ranges:
            if 0 <= first <= last:
                self._add(low + first, low + last)

    def is_done(self, offset: int) -> bool:
        """Says whether an offset needs no more handling."""
        if offset < self.low:
            return True
        index = bisect_right(self._firsts, offset) - 1
        return index >= 0 and offset <= self._lasts[index]

    def is_open(self, entry: tuple[str, int]) -> bool:
        """Says whether an offset of a log is one of this ledger's, and not done."""
        return entry[0] == self.log_id and not self.is_done(entry[1])

    def finish(self, offset: int) -> None:
        """Marks an offset as done."""
        self.rejections.pop(offset, None)
        if offset == self.low and not self._firsts:
            self.low += 1  # in order, as nearly always
        elif not self.is_done(offset):
            self._add(offset, offset)

    def skip_to(self, offset: int) -> None:
        """Marks everything below as done: it is no longer there."""
        if offset > self.low:
            self.rejections = {key: count for key, count in self.rejections.items() if key >= offset}
            self._add(self.low, offset - 1)

    def fit(self, begin: int, end: int) -> None:
        """Takes note of what the log holds.

        What ends before it was done is another log, or lost its end and may have got another: nothing of it is done.
        """
        if max(self.low - 1, *self._lasts[-1:], -1) >= end:
            self.low = self.done_count = 0
            self.rejections, self._firsts, self._lasts = {}, [], []
        self.skip_to(begin)

    def merge(self, other: "Ledger") -> None:
        """Adds what another ledger of the same partition says is done; of rejections the higher count is kept."""
        self.skip_to(other.low)
        for first, last in zip(other._firsts, other._lasts, strict=True):
            self._add(max(first, self.low), last)
        for offset, count in other.rejections.items():
            if not self.is_done(offset):
                self.rejections[offset] = max(count, self.rejections.get(offset, 0))

    def metadata(self) -> str:
        """Returns what is to be committed beside ``low``.

        Where it does not fit, the newest gaps are left out: those messages may come again.
        """
        ranges = [[first - self.low, last - self.low] for first, last in zip(self._firsts, self._lasts, strict=True)]
        counts = {str(offset - self.low): count for offset, count in self.rejections.items()}
        while len(text := _json({"l": self.log_id, "d": ranges, "r": counts})) > METADATA_LIMIT_BYTES:
            if ranges:
                ranges = ranges[: len(ranges) // 2]
            else:
                counts = dict(list(counts.items())[: len(counts) // 2])
        return text

    def _add(self, first: int, last: int) -> None:
        """Joins a range with those that it overlaps or touches, and with ``low``."""
        if last < first:
            return
        start = bisect_right(self._lasts, first - 2)  # the first range that is not wholly before it
        stop = bisect_right(self._firsts, last + 1)  # the first that is wholly behind it
        if start < stop:
            first, last = min(first, self._firsts[start]), max(last, self._lasts[stop - 1])
        replaced = zip(self._firsts[start:stop], self._lasts[start:stop], strict=True)
        self.done_count += last - first + 1 - sum(end - begin + 1 for begin, end in replaced)
        self._firsts[start:stop] = [first]
        self._lasts[start:stop] = [last]
        if self._firsts[0] <= self.low:
            self.low = self._lasts.pop(0) + 1
            self.done_count -= self.low - self._firsts.pop(0)


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, separators=(",", ":"))
