"""Lines of output as one object: frames of zstd, each with some lines as JSON, and an index of the frames at the end.

The whole is a zstd file (RFC 8878): ``zstdcat`` prints its lines. The index is a skippable frame, for readers that want
a few lines only: it says which lines each frame holds, of which attempts, and where the frame is.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO, Final

import msgspec
import zstandard

from formicary.artifacts.base import ArtifactCorruptError
from formicary.store.log_parts import AttemptLines
from formicary.store.logs import LogRow

#: JSON of a frame, before it is compressed, reaches this size.
FRAME_BYTES: Final = 256 * 1024
#: A frame that says that it is larger was not written by us: a line has 64 KiB of text at most.
_LARGEST_FRAME_BYTES: Final = 16 * FRAME_BYTES
_LEVEL: Final = 3
#: Of a frame that decompressors pass over: its magic number and the size of what follows.
_SKIPPABLE: Final = struct.Struct("<II")
_SKIPPABLE_MAGIC: Final = 0x184D2A50


class _Line(msgspec.Struct, frozen=True):
    """A line, as the object holds it."""

    arrival: int
    task_no: int
    attempt: int
    seq: int
    stream: str
    at: datetime
    text: str


class Count(msgspec.Struct, frozen=True, array_like=True):
    """How many lines of an attempt a frame holds."""

    task_no: int
    attempt: int
    count: int


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """Where a frame is in the object, and what it holds."""

    start: int
    size_bytes: int
    last_arrival: int
    counts: tuple[Count, ...]

    @property
    def end(self) -> int:
        """Returns the position behind the frame."""
        return self.start + self.size_bytes

    def count(self, task_no: int | None, attempt: int | None) -> int:
        """Returns how many lines it holds of a task and an attempt, or of all (None)."""
        return sum(
            each.count for each in self.counts if task_no in (None, each.task_no) and attempt in (None, each.attempt)
        )


_encoder = msgspec.json.Encoder()
_lines_decoder = msgspec.json.Decoder(_Line)
_index_decoder = msgspec.msgpack.Decoder(tuple[Frame, ...])


class PartWriter:
    """Writes lines into a file; blocks. ``finish`` comes last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._text = bytearray()
        self._counts: Counter[tuple[int, int]] = Counter()
        self._frames: list[Frame] = []
        self._ranges: dict[tuple[int, int], list[list[int]]] = {}
        self.position = 0
        self.line_count = 0
        self.first_arrival = 0
        self.last_arrival = 0

    def add(self, rows: Sequence[LogRow]) -> None:
        """Appends lines, which come in the order of their arrival."""
        for row in rows:
            self._text += _encoder.encode(_Line(*row))
            self._text += b"\n"
            self._counts[row.task_no, row.attempt] += 1
            _extend(self._ranges.setdefault((row.task_no, row.attempt), []), row.seq)
            self.first_arrival = self.first_arrival or row.arrival
            self.last_arrival = row.arrival
            if len(self._text) >= FRAME_BYTES:
                self._end_frame()
        self.line_count += len(rows)

    def finish(self) -> int:
        """Writes the index; returns where it begins."""
        self._end_frame()
        index_start = self.position
        index = msgspec.msgpack.encode(self._frames)
        self._write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(index)) + index)
        self._file.flush()
        return index_start

    def attempts(self) -> list[AttemptLines]:
        """Returns which lines were written."""
        return [AttemptLines(*key, ranges=_merged(ranges)) for key, ranges in self._ranges.items()]

    def _end_frame(self) -> None:
        if not self._text:
            return
        start = self.position
        self._write(self._compressor.compress(self._text))
        counts = tuple(Count(*key, count) for key, count in sorted(self._counts.items()))
        self._frames.append(Frame(start, self.position - start, self.last_arrival, counts))
        self._text.clear()
        self._counts.clear()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.position += len(data)


def _extend(ranges: list[list[int]], seq: int) -> None:
    if ranges and ranges[-1][1] == seq - 1:
        ranges[-1][1] = seq
    else:
        ranges.append([seq, seq])


def _merged(ranges: Iterable[list[int]]) -> tuple[tuple[int, int], ...]:
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and merged[-1][1] == first - 1:
            merged[-1][1] = last
        else:
            merged.append([first, last])
    return tuple((first, last) for first, last in merged)


def read_index(key: str, data: bytes) -> tuple[Frame, ...]:
    """Returns the frames that the end of an object tells of.

    Raises:
        ArtifactCorruptError: it is no index.
    """
    try:
        magic, size_bytes = _SKIPPABLE.unpack_from(data)
        if magic != _SKIPPABLE_MAGIC or size_bytes != len(data) - _SKIPPABLE.size:
            raise ArtifactCorruptError(f"{key} has no index where it should be")
        return _index_decoder.decode(memoryview(data)[_SKIPPABLE.size :])
    except (struct.error, msgspec.DecodeError) as exc:
        raise ArtifactCorruptError(f"the index of {key} is damaged: {exc}") from exc


def read_frame(key: str, data: bytes) -> list[LogRow]:
    """Returns the lines of a frame. Blocks for a moment.

    Raises:
        ArtifactCorruptError: it is damaged.
    """
    try:
        if zstandard.frame_content_size(data) > _LARGEST_FRAME_BYTES:
            raise ArtifactCorruptError(f"a frame of {key} is larger than any that was written")
        text = zstandard.ZstdDecompressor().decompress(data)
        return [LogRow(*msgspec.structs.astuple(line)) for line in _lines_decoder.decode_lines(text)]
    except (zstandard.ZstdError, msgspec.DecodeError) as exc:
        raise ArtifactCorruptError(f"a frame of {key} is damaged: {exc}") from exc
