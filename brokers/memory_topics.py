"""The logs of the memory broker: pure bookkeeping, no asyncio.

An *offset* counts the messages of a topic from 0; a position is the offset of the message it lies behind, together with
the life of the log, since offsets of an earlier process or of a deleted topic mean nothing.
"""

import heapq
import struct
from dataclasses import dataclass, field
from typing import Final

from brokers.base import Edge, Entry, Message, Position
from brokers.errors import PositionTrimmedError

_POSITION: Final = struct.Struct(">8sQ")


@dataclass(slots=True)
class Group:
    """What one consumer group has yet to do in one topic.

    Every offset from ``low`` on is either done, held by a consumer, waiting to come back, or not yet handed out.
    """

    #: Everything below is acknowledged.
    low: int
    #: The next offset that was never handed out.
    fresh: int
    done: set[int] = field(default_factory=set)
    #: Offset -> serial number of the delivery that holds it.
    held: dict[int, int] = field(default_factory=dict)
    #: Offsets to hand out again, the oldest first.
    returned: list[int] = field(default_factory=list)
    #: (time due, offset) of rejected messages.
    delayed: list[tuple[float, int]] = field(default_factory=list)
    rejections: dict[int, int] = field(default_factory=dict)

    def finish(self, offset: int) -> None:
        """Marks an offset as acknowledged, whoever holds it."""
        if offset < self.low or offset in self.done:
            return
        self.held.pop(offset, None)
        self.rejections.pop(offset, None)
        self.done.add(offset)
        while self.low in self.done:
            self.done.remove(self.low)
            self.low += 1

    def give_back(self, offset: int) -> None:
        """Returns a held offset to the front of the group."""
        del self.held[offset]
        heapq.heappush(self.returned, offset)

    def delay(self, offset: int, due: float) -> None:
        """Keeps a held offset back until ``due``."""
        del self.held[offset]
        heapq.heappush(self.delayed, (due, offset))

    def next_offset(self, end: int, now: float) -> int | None:
        """Takes the next offset to hand out: what came back first, in order, then what is new."""
        while self.delayed and self.delayed[0][0] <= now:
            heapq.heappush(self.returned, heapq.heappop(self.delayed)[1])
        while self.returned:
            offset = heapq.heappop(self.returned)
            if offset >= self.low and offset not in self.done:
                return offset
        if self.fresh < end:
            self.fresh += 1
            return self.fresh - 1
        return None


class Topic:
    """An ordered log and its groups."""

    def __init__(self, name: str, life: bytes, first_offset: int) -> None:
        self.name = name
        self.groups: dict[str, Group] = {}
        self.size_bytes = 0
        self._life = life
        self._base = first_offset
        self._entries: list[Entry] = []
        #: A reader by position has shown itself: the log is kept until it is trimmed.
        self._is_log = False
        #: The largest offset that a reader by position has put behind it.
        self._passed = first_offset

    @property
    def end(self) -> int:
        """Returns the offset of the next message."""
        return self._base + len(self._entries)

    @property
    def base(self) -> int:
        """Returns the offset of the oldest message held."""
        return self._base

    def append(self, message: Message) -> None:
        """Adds a message at the end."""
        self._entries.append(Entry(self._position(self.end), message))
        self.size_bytes += len(message.body)

    def message(self, offset: int) -> Message:
        """Returns a message that is held."""
        return self._entries[offset - self._base].message

    def group(self, name: str) -> Group:
        """Returns a group; a new one starts at the oldest message held."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(low=self._base, fresh=self._base)
        return group

    def after(self, position: Position | Edge) -> int:
        """Returns the offset that follows a position, and notes that this log is read by position."""
        self._is_log = True
        if position is Edge.START:
            return self._base
        if position is Edge.END:
            return self.end
        offset = self._offset(position) + 1
        if offset < self._base:
            raise PositionTrimmedError(self.name)
        self._passed = max(self._passed, offset)
        return offset

    def entries(self, offset: int, max_count: int) -> list[Entry]:
        """Returns what is held from ``offset`` on."""
        start = max(0, offset - self._base)
        return self._entries[start : start + max_count]

    def end_position(self) -> Position | Edge:
        """Returns a position behind the last message."""
        self._is_log = True
        return self._position(self.end - 1) if self.end else Edge.START

    def trim(self, before: Position) -> None:
        """Drops everything up to and including the message that ``before`` lies behind and no group still needs."""
        self._is_log = True
        self._drop_below(min([self._offset(before) + 1, *(group.low for group in self.groups.values())]))

    def drop_acknowledged(self) -> None:
        """Drops what all groups are done with, unless the log is also read by position."""
        if not self._is_log and self.groups:
            self._drop_below(min(group.low for group in self.groups.values()))

    def is_wanted(self) -> bool:
        """Says whether a group or a reader by position may still ask for what is published now."""
        return self._is_log or bool(self.groups)

    def shrink(self, target_bytes: int) -> None:
        """Drops the oldest that nobody has yet to see until ``target_bytes`` are left, or as near as that gets.

        That is what readers by position have put behind them and did not trim; where there is neither such a reader
        nor a group, it is anything.
        """
        lows = [group.low for group in self.groups.values()]
        if self._is_log:
            lows.append(self._passed)
        floor = min(lows, default=self.end)
        excess, offset = self.size_bytes - target_bytes, self._base
        while excess > 0 and offset < floor:
            excess -= len(self.message(offset).body)
            offset += 1
        self._drop_below(offset)

    def _drop_below(self, offset: int) -> None:
        count = min(offset, self.end) - self._base
        if count > 0:
            self.size_bytes -= sum(len(entry.message.body) for entry in self._entries[:count])
            del self._entries[:count]
            self._base += count

    def _position(self, offset: int) -> Position:
        return Position(_POSITION.pack(self._life, offset))

    def _offset(self, position: Position | Edge) -> int:
        if isinstance(position, Edge) or len(position) != _POSITION.size:
            raise PositionTrimmedError(self.name)
        life, offset = _POSITION.unpack(position)
        if life != self._life or offset >= self.end:
            raise PositionTrimmedError(self.name)
        return int(offset)
