"""The object that lines are moved to: all of them come back, any program reads it, damage is noticed."""

import io
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from formicary.artifacts.base import ArtifactCorruptError
from formicary.queen.log_archive import FRAME_BYTES, PartWriter, read_frame, read_index
from formicary.store.logs import LogRow

AT = datetime(2030, 1, 1, 12, 30, 59, 123456, UTC)


def rows(count: int, text: str = "line") -> list[LogRow]:
    return [
        LogRow(10 + 3 * n, n % 3, 1 + n % 2, n + 1, "stdout", AT + timedelta(seconds=n), f"{text} {n}")
        for n in range(count)
    ]


def write(lines: list[LogRow], at_once: int = 1000) -> tuple[bytes, int, PartWriter]:
    file = io.BytesIO()
    writer = PartWriter(file)
    for start in range(0, len(lines), at_once):
        writer.add(lines[start : start + at_once])
    index_start = writer.finish()
    return file.getvalue(), index_start, writer


def read(data: bytes, index_start: int) -> Iterator[LogRow]:
    for frame in read_index("k", data[index_start:]):
        yield from read_frame("k", data[frame.start : frame.end])


@pytest.mark.parametrize("count", [0, 1, 100, 20_000])
def test_all_lines_come_back_as_they_were(count: int) -> None:
    lines = rows(count)
    data, index_start, writer = write(lines, at_once=700)

    assert list(read(data, index_start)) == lines
    assert (writer.line_count, writer.position) == (count, len(data))


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_any_text_comes_back(texts: list[str]) -> None:
    lines = [LogRow(n + 1, 0, 1, n + 1, "stderr", AT, text) for n, text in enumerate(texts)]
    data, index_start, _ = write(lines)

    assert list(read(data, index_start)) == lines


def test_the_index_tells_what_each_frame_holds() -> None:
    lines = rows(20_000)
    data, index_start, _ = write(lines)
    frames = read_index("k", data[index_start:])

    assert len(frames) > 3
    assert frames[0].start == 0
    assert all(former.end == frame.start for former, frame in itertools.pairwise(frames))
    for frame in frames:
        held = read_frame("k", data[frame.start : frame.end])
        assert frame.last_arrival == held[-1].arrival
        assert frame.count(None, None) == len(held)
        assert frame.count(2, 1) == sum(line.task_no == 2 and line.attempt == 1 for line in held)
        assert frame.count(2, 9) == frame.count(9, None) == 0


def test_frames_are_of_a_size_that_is_quick_to_read() -> None:
    data, index_start, _ = write(rows(200, "x" * 60_000))
    frames = read_index("k", data[index_start:])

    assert len(frames) > 200 * 60_000 / FRAME_BYTES / 2
    for frame in frames:
        size_bytes = zstandard.frame_content_size(data[frame.start : frame.end])
        assert size_bytes < FRAME_BYTES + 65536 * 2


def test_any_program_that_knows_zstd_reads_the_lines() -> None:
    data, _, _ = write(rows(5000))
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        text = reader.read().decode()

    assert text.count("\n") == 5000
    assert text.splitlines()[7] == (
        '{"arrival":31,"task_no":1,"attempt":2,"seq":8,"stream":"stdout","at":"2030-01-01T12:31:06.123456Z",'
        '"text":"line 7"}'
    )


def test_which_lines_of_an_attempt_there_are_is_told_in_ranges() -> None:
    seqs = [1, 2, 3, 7, 8, 5, 4, 12]
    lines = [LogRow(arrival, 0, 1, seq, "stdout", AT, "") for arrival, seq in enumerate(seqs, 1)]
    _, _, writer = write(lines)

    (attempt,) = writer.attempts()
    assert (attempt.task_no, attempt.attempt) == (0, 1)
    assert attempt.ranges == ((1, 5), (7, 8), (12, 12))


def test_damage_anywhere_is_noticed() -> None:
    lines = rows(50)
    data, index_start, _ = write(lines)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        try:
            found = list(read(bytes(damaged), index_start))
        except ArtifactCorruptError:
            continue
        assert found == lines or position >= index_start


def test_an_index_that_is_none_is_refused() -> None:
    for data in (b"", b"x" * 7, b"x" * 100, b"\x50\x2a\x4d\x18\xff\xff\xff\xff"):
        with pytest.raises(ArtifactCorruptError):
            read_index("k", data)
