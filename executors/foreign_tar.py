"""Tar archives of strangers, read in bounded memory.

``tarfile`` takes in whole what an archive says of an entry beside its content (long names, extended headers, where a
file has holes), however much that is, and keeps all entries it came by. It also takes a damaged header for the end.
"""

import tarfile
from typing import Any, Final, Self

#: All that an archive may say of one entry. Two of the longest paths of Linux fit in; in 64 KiB so many keywords would
#: that each begins within another that ``tarfile`` makes a gigabyte of them.
HEADER_BYTES: Final = 16 * 1024
#: Names of entries that were left out are remembered up to this number.
MOST_NAMES: Final = 1000


class _Entry(tarfile.TarInfo):
    """An entry whose header must be one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Reads a header."""
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as exc:
            if bytes(buf) == bytes(tarfile.BLOCKSIZE):
                raise  # the true end
            raise tarfile.ReadError(str(exc)) from exc
        if member.size < 0:
            raise tarfile.ReadError("bad header")
        return member


class _Metered:
    """A file of which headers may take only so much."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.tell, self.seek, self.close = file.tell, file.seek, file.close
        #: What may be read yet; None: whatever is there.
        self.left_bytes: int | None = None

    def read(self, size: int) -> bytes:
        if self.left_bytes is not None:
            self.left_bytes -= size
            if self.left_bytes < 0:
                raise tarfile.ReadError(f"the headers of an entry have more than {HEADER_BYTES} bytes")
        data: bytes = self._file.read(size)
        return data


class ForeignTar(tarfile.TarFile):
    """An archive to be read by ``next``, entry after entry: it keeps none, so it looks for none by name.

    Errors of the archive are ``tarfile.TarError`` and those that ``tarfile`` itself trips over.
    """

    tarinfo = _Entry

    def __init__(self, name: Any = None, mode: Any = "r", fileobj: Any = None, **options: Any) -> None:
        self._metered = _Metered(fileobj)
        super().__init__(name, mode, self._metered, **options)  # type: ignore[arg-type]  # has what is needed of a file

    def next(self) -> tarfile.TarInfo | None:
        """Returns the next entry, None at the end."""
        self.members.clear()  # type: ignore[attr-defined]  # not in its stubs
        self.pax_headers.clear()  # type: ignore[attr-defined]  # those for all entries that follow: no tar writes any
        self._metered.left_bytes = HEADER_BYTES
        try:
            return super().next()
        finally:
            self._metered.left_bytes = None


def add_name(names: list[str], name: str) -> None:
    """Remembers the name of an entry that was left out, unless there are very many."""
    if len(names) < MOST_NAMES:
        names.append(name)
