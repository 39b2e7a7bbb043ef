"""A container's log as the cluster gives it, back to the bytes that the container wrote. Pure.

Each line begins with its time, to the nanosecond; an interrupted stream is resumed from the last one. What is read
twice then is known by its time and its place among the lines of that time. Lines of stdout and stderr need not come in
the order of their times, so the last ``REMEMBERED`` times are kept; what is older than all of them was read.
"""

import re
from typing import Final

#: Times of lines that are remembered.
REMEMBERED: Final = 4096
#: A longer first word is no time.
_MAX_TIME_BYTES: Final = 40
_EVERYTHING: Final = 1 << 62
_STREAMS: Final = 2
#: What follows the mark in a line of the wrapper, and the longest that it can be.
_MARKED: Final = re.compile(rb"([0-9]{1,3}:[0-9]{0,20}:[a-z]{0,8})\n")
_MAX_MARKED_BYTES: Final = 35


class LogLines:
    """Takes the pieces of a log stream and gives what has not been given before, without the times."""

    def __init__(self) -> None:
        self._given: dict[bytes, int] = {}
        self._met: dict[bytes, int] = {}
        self._head = bytearray()
        self._time: bytes | None = None
        self._skip = 0
        self._line_bytes = 0
        #: A line that broke off: its time, its place among the lines of that time, the bytes given of it.
        self._broken: tuple[bytes, int, int] | None = None
        #: The time of the newest line.
        self.newest: bytes = b""

    def resume(self) -> None:
        """Says that a new stream begins."""
        if self._time is not None and not self._is_old(self._time, self._met[self._time]):
            already = self._broken[2] if self._broken and self._broken[:2] == (self._time, self._met[self._time]) else 0
            self._broken = (self._time, self._met[self._time], max(self._line_bytes, already))
        self._met.clear()
        self._head.clear()
        self._time = None

    def since(self) -> str:
        """Returns the time to resume from, to the second; empty: from the beginning."""
        text = self.newest.decode("ascii", "replace")
        return f"{text[:19]}{_zone(text)}" if text else ""

    def feed(self, data: bytes) -> bytes:
        """Returns what is new in a piece."""
        new = bytearray()
        position = 0
        while position < len(data):
            is_time = self._time is None
            position = self._read_time(data, position) if is_time else self._read_text(data, position, new)
        return bytes(new)

    def _read_time(self, data: bytes, start: int) -> int:
        space = data.find(b" ", start)
        end = len(data) if space < 0 else space
        self._head += data[start:end]
        if space < 0 and len(self._head) <= _MAX_TIME_BYTES:
            return end
        time = bytes(self._head)
        self._head.clear()
        self._begin(time)
        return end + 1

    def _begin(self, time: bytes) -> None:
        self._time = time
        self._line_bytes = 0
        number = self._met[time] = self._met.get(time, 0) + 1
        is_old = self._is_old(time, number)
        self._skip = _EVERYTHING if is_old else 0
        if not is_old and self._broken is not None and self._broken[:2] == (time, number):
            self._skip = self._broken[2]
        self.newest = max(self.newest, time)

    def _is_old(self, time: bytes, number: int) -> bool:
        """Whether a line, the ``number``-th of its time, was given whole."""
        return number <= self._given.get(time, 0) or self._is_forgotten(time)

    def _is_forgotten(self, time: bytes) -> bool:
        return len(self._given) >= REMEMBERED and time < next(iter(self._given))

    def _read_text(self, data: bytes, start: int, new: bytearray) -> int:
        newline = data.find(b"\n", start)
        end = len(data) if newline < 0 else newline + 1
        skipped = min(self._skip, end - start)
        new += data[start + skipped : end]
        self._skip -= skipped
        self._line_bytes += end - start
        if newline >= 0:
            self._finish()
        return end

    def _finish(self) -> None:
        time = self._time
        if time is None:
            return
        self._time = None
        if self._is_forgotten(time):
            self._met.pop(time, None)
            return
        self._given[time] = max(self._given.get(time, 0), self._met[time])
        if len(self._given) > REMEMBERED:
            oldest = next(iter(self._given))
            del self._given[oldest]
            self._met.pop(oldest, None)


class MarkFinder:
    """Finds the wrapper's last lines in what a container wrote, one on each of its streams, and takes them out.

    A script can learn the mark, and write such lines itself: then it says how it ended, and nothing worse comes of it.

    Args:
        mark: what the lines begin with, after a record separator; not to be guessed.
    """

    def __init__(self, mark: str) -> None:
        self._mark = b"\x1e" + mark.encode() + b":"
        self._held = b""
        self._count = 0
        self._newest = ""

    @property
    def found(self) -> str | None:
        """Returns what follows the mark in the newest line, once two were found: all output came before."""
        return self._newest if self._count >= _STREAMS else None

    def feed(self, data: bytes) -> bytes:
        """Returns what is certainly no part of the lines; what may be one is at most as long as one."""
        if not self._held and b"\x1e" not in data:
            return data
        data = self._held + data
        output, position = bytearray(), 0
        while (at := data.find(self._mark, position)) >= 0:
            begin = at + len(self._mark)
            line = _MARKED.match(data, begin)
            if line is None and len(data) - begin < _MAX_MARKED_BYTES and b"\n" not in data[begin:]:
                self._held = data[at:]
                return bytes(output + data[position:at])
            output += data[position : at if line else begin]
            position = line.end() if line else begin
            if line:
                self._count += 1
                self._newest = line[1].decode()
        certain = max(position, len(data) - self._possible_bytes(data))
        self._held = data[certain:]
        return bytes(output + data[position:certain])

    def rest(self) -> bytes:
        """Returns what is left at the end of the log."""
        data, self._held = self._held, b""
        return data

    def _possible_bytes(self, data: bytes) -> int:
        """Returns how many bytes at the end may be the beginning of the mark."""
        at = data.rfind(b"\x1e", max(0, len(data) - len(self._mark)))
        return len(data) - at if at >= 0 and self._mark.startswith(data[at:]) else 0


def _zone(time: str) -> str:
    for sign in ("+", "-"):
        at = time.rfind(sign)
        if at > 18:
            return time[at:]
    return "Z"
