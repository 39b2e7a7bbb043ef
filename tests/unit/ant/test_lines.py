"""Lines out of bytes, with bounded memory."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from formicary.ant.lines import CUT_MARK, MAX_LINE_BYTES, LineSplitter


def texts(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    pieces = list(itertools.chain.from_iterable(map(splitter.feed, chunks)))
    return [piece.text for piece in pieces + splitter.finish()]


@given(st.lists(st.text("ab\n", max_size=8).map(str.encode)))
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    assert texts(*chunks) == texts(b"".join(chunks))


def test_the_last_line_needs_no_end() -> None:
    assert texts(b"a\n\nb") == ["a", "", "b"]
    assert texts(b"a\n") == ["a"]


def test_a_line_beyond_the_limit_is_cut_with_a_mark_and_nothing_is_lost() -> None:
    lines = texts(b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nshort\n")
    assert [len(line.removesuffix(CUT_MARK)) for line in lines] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 5, 5]
    assert [line.endswith(CUT_MARK) for line in lines] == [True, True, False, False]


def test_a_cut_falls_between_characters() -> None:
    lines = texts(b"a" + "ü".encode() * MAX_LINE_BYTES)
    assert "\ufffd" not in "".join(lines)
    assert "".join(line.removesuffix(CUT_MARK) for line in lines) == "a" + "ü" * MAX_LINE_BYTES


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    assert texts(b"a\xff\xfeb\r\n", "\ud800".encode("utf-8", "surrogatepass")) == ["a\ufffd\ufffdb", "\ufffd" * 3]


def test_a_line_without_end_takes_bounded_memory() -> None:
    splitter = LineSplitter()
    for _ in range(1000):
        splitter.feed(b"x" * 65_536)
        assert len(splitter._rest) <= MAX_LINE_BYTES  # the state itself is the claim
