"""Lines out of a stream of bytes, with bounded memory."""

from typing import Final, NamedTuple

from formicary.ant.values import clean_text

#: A longer line is cut into pieces of at most this size.
MAX_LINE_BYTES: Final = 64 * 1024
#: Ends every piece of a cut line but the last.
CUT_MARK: Final = " [line cut]"
_UTF8_MAX: Final = 3


class Piece(NamedTuple):
    """A line, or a part of one that was too long."""

    text: str
    is_continuation: bool = False
    #: The line goes on in the next piece.
    is_cut: bool = False


class LineSplitter:
    """Splits one stream; holds at most one unfinished piece."""

    def __init__(self) -> None:
        self._rest = bytearray()
        #: What is in ``_rest`` continues a line that was cut.
        self._is_continuation = False

    def feed(self, data: bytes) -> list[Piece]:
        """Returns the pieces that are complete."""
        lines: list[Piece] = []
        parts = data.split(b"\n")
        for part in parts[:-1]:
            self._append(part, lines)
            self._end_line(lines)
        self._append(parts[-1], lines)
        return lines

    def finish(self) -> list[Piece]:
        """Returns the unterminated last line, if there is one."""
        lines: list[Piece] = []
        if self._rest or self._is_continuation:
            self._end_line(lines)
        return lines

    def _append(self, part: bytes, lines: list[Piece]) -> None:
        self._rest += part
        while len(self._rest) > MAX_LINE_BYTES:
            cut = _character_border(self._rest, MAX_LINE_BYTES)
            lines.append(Piece(_text(self._rest[:cut]) + CUT_MARK, self._is_continuation, is_cut=True))
            del self._rest[:cut]
            self._is_continuation = True

    def _end_line(self, lines: list[Piece]) -> None:
        lines.append(Piece(_text(self._rest).removesuffix("\r"), self._is_continuation))
        self._rest.clear()
        self._is_continuation = False


def _character_border(data: bytearray, at: int) -> int:
    for back in range(_UTF8_MAX + 1):
        if data[at - back] & 0xC0 != 0x80:
            return at - back
    return at


def _text(data: bytes | bytearray) -> str:
    return clean_text(data.decode("utf-8", "replace"))
