"""What a container wrote, out of streams that break off, overlap and come out of order."""

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executors.kubernetes.log_lines import REMEMBERED, LogLines, MarkFinder

MARK = "0123456789abcdef"


def stamp(nanos: int) -> bytes:
    return b"2026-01-02T03:04:%02d.%09dZ" % divmod(nanos, 10**9)


def log_of(lines: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(stamp(at) + b" " + text for at, text in lines)


LINES = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=6).map(lambda text: text.replace(b"\n", b"") + b"\n")))


@given(lines=LINES, cuts=st.lists(st.integers(0, 200), max_size=5), sizes=st.lists(st.integers(1, 7), min_size=1))
@example(lines=[(0, b"\n"), *[(0, b"\0\n")] * 4], cuts=[163, 31], sizes=[1])  # then within a line that was whole before
def test_every_byte_comes_once_however_often_the_stream_breaks_off(
    lines: list[tuple[int, bytes]], cuts: list[int], sizes: list[int]
) -> None:
    log = log_of(lines)
    reader, said = LogLines(), bytearray()
    for cut in [*cuts, len(log)]:
        reader.resume()
        said += in_pieces(reader, log[:cut], sizes)

    assert bytes(said) == b"".join(text for _, text in lines)


def in_pieces(reader: LogLines, data: bytes, sizes: list[int]) -> bytes:
    said, position, turn = bytearray(), 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        said += reader.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    return bytes(said)


def test_a_stream_that_begins_at_the_second_of_the_last_line_adds_only_what_is_new() -> None:
    lines = [(at, b"%d\n" % at) for at in range(10)]
    reader = LogLines()
    reader.resume()
    first = reader.feed(log_of(lines[:6]) + stamp(6) + b" 6")
    assert reader.since() == "2026-01-02T03:04:00Z"

    reader.resume()
    rest = reader.feed(log_of(lines))

    assert first + rest == b"".join(text for _, text in lines)


def test_more_lines_than_are_remembered_are_not_told_twice() -> None:
    lines = [(at, b"%d\n" % at) for at in range(REMEMBERED * 2)]
    reader = LogLines()
    reader.resume()
    reader.feed(log_of(lines))

    reader.resume()

    assert reader.feed(log_of([*lines, (len(lines), b"new\n")])) == b"new\n"


def test_the_zone_of_the_node_is_kept() -> None:
    reader = LogLines()
    reader.feed(b"2026-01-02T03:04:05.000000000+05:30 x\n")

    assert reader.since() == "2026-01-02T03:04:05+05:30"
    assert LogLines().since() == ""


@given(before=st.binary(max_size=40), between=st.binary(max_size=20), size=st.integers(1, 9))
def test_the_mark_is_found_and_taken_out_however_the_stream_is_cut(before: bytes, between: bytes, size: int) -> None:
    mark = b"\x1e" + MARK.encode() + b":3:0:o\n"
    data = before + mark + between + mark
    finder, said = MarkFinder(MARK), bytearray()
    for start in range(0, len(data), size):
        said += finder.feed(data[start : start + size])

    assert bytes(said) + finder.rest() == before + between
    assert finder.found == "3:0:o"


def test_half_a_mark_is_output() -> None:
    finder = MarkFinder(MARK)

    assert finder.feed(b"text \x1e0123") == b"text "
    assert finder.feed(b"456") == b""
    assert finder.rest() == b"\x1e0123456"
    assert finder.found is None


def test_one_mark_is_not_the_end_since_the_other_stream_may_have_more() -> None:
    finder = MarkFinder(MARK)

    finder.feed(b"\x1e" + MARK.encode() + b":0:0:\n")

    assert finder.found is None


@pytest.mark.parametrize("follows", [b"", b"0:0:", b"\x1e", b"\x1e" + MARK.encode() + b":"])
def test_a_script_that_writes_the_mark_holds_nothing_back(follows: bytes) -> None:
    finder = MarkFinder(MARK)
    forged = b"\x1e" + MARK.encode() + b":" + follows
    pieces = [forged, *[b"x" * 10_000] * 20, forged * 1000, b"x" * 10_000]

    said = finder.feed(pieces[0])
    for number, piece in enumerate(pieces[1:], 2):
        said += finder.feed(piece)
        assert len(b"".join(pieces[:number])) - len(said) < 100

    assert said + finder.rest() == b"".join(pieces)


@pytest.mark.parametrize("forged", [":9:9:\n", ":9:9:", ":", ":no:number:\n", ""])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_lines_that_a_script_forged_do_not_hide_those_of_the_wrapper(forged: str, count: int) -> None:
    finder = MarkFinder(MARK)

    finder.feed(f"\x1e{MARK}{forged}".encode() * count)
    finder.feed(f"\x1e{MARK}:3:0:o\n".encode() * 2)

    assert finder.found == "3:0:o"


def test_a_stream_that_never_breaks_takes_no_more_memory_with_each_line() -> None:
    lines = LogLines()

    for at in range(REMEMBERED * 3):
        lines.feed(stamp(at) + b" x\n")

    assert max(len(lines._met), len(lines._given)) <= REMEMBERED + 1
